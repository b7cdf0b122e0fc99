-- name: KnowledgeTerms :many
-- KnowledgeTerms answers the words that a search by words looks for in repositories.
SELECT r.id::bigint AS repository_id, t.word::text AS word, max(t.weight)::double precision AS weight
  FROM unnest(@repositories::bigint[]) AS r (id)
 CROSS JOIN unnest(@queries::text[]) AS q (part)
 CROSS JOIN LATERAL knowledge_terms(r.id, q.part) t
 WHERE t.sought
 GROUP BY r.id, t.word
 ORDER BY r.id, weight DESC, t.word;

-- name: KnowledgeMatched :many
-- KnowledgeMatched answers which of these words are in chunks.
SELECT c.id AS chunk_id, t.word::text AS word, max(t.weight)::double precision AS weight
  FROM unnest(@repositories::bigint[]) AS r (id)
 CROSS JOIN unnest(@queries::text[]) AS q (part)
 CROSS JOIN LATERAL knowledge_terms(r.id, q.part) t
  JOIN chunks c ON c.repository_id = r.id
 WHERE c.id = ANY(@chunks::bigint[]) AND t.sought AND c.words @@ quote_literal(t.word)::tsquery
 GROUP BY c.id, t.word
 ORDER BY c.id, weight DESC, t.word;

-- name: KnowledgeIndexUse :many
-- KnowledgeIndexUse answers whether the vectors of repositories have an index, and
-- whether this transaction has used it.
SELECT s.repository_id, u.present::boolean AS present, u.used::boolean AS used
  FROM repositories r
  JOIN embedding_spaces s ON s.id = r.space_id
 CROSS JOIN LATERAL knowledge_index_use(s.id) u
 WHERE r.id = ANY(@repositories::bigint[])
 ORDER BY s.repository_id;
