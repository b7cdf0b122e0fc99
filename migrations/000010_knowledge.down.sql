DROP VIEW v_retrieved_chunks;
DROP VIEW v_retrievals;
CREATE VIEW v_retrievals AS
SELECT ev.execution_id,
       e.chain_name,
       (ev.event_data ->> 'promptId')::bigint AS prompt_id,
       (ev.event_data ->> 'documentsFound')::integer AS documents_found,
       (ev.event_data ->> 'relevanceScore')::double precision AS relevance_score,
       (ev.event_data ->> 'tokens')::integer AS tokens,
       ev.event_data ->> 'error' AS error,
       ev.created_at
  FROM events ev
  JOIN executions e ON e.id = ev.execution_id
 WHERE ev.event_type = 'knowledge-retrieved';
DROP TABLE retrievals;
DROP FUNCTION knowledge_index_use(bigint);
DROP FUNCTION knowledge_search(bigint[], text, text[], bigint[], text[], integer, jsonb);
DROP FUNCTION knowledge_matching(bigint, text, integer, jsonb);
DROP FUNCTION knowledge_terms(bigint, text);
DROP FUNCTION knowledge_nearest(bigint, text, integer, jsonb);
DROP FUNCTION knowledge_count_words(bigint, integer, integer);
DROP FUNCTION knowledge_space_index(bigint);
DROP FUNCTION knowledge_space_drop(bigint);
DROP FUNCTION knowledge_space_add(bigint, text, integer);
DROP FUNCTION knowledge_language_exists(text);
DROP TABLE chunk_vectors;
DROP TABLE repository_words;
DROP TABLE chunks;
DROP TABLE document_uploads;
DROP TABLE documents;
ALTER TABLE repositories DROP COLUMN space_id;
DROP TABLE embedding_spaces;
DROP TABLE repositories;
