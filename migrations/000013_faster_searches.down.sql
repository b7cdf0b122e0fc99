CREATE INDEX chunks_words_idx ON chunks USING gin (words);
DROP INDEX chunks_repository_words_idx;
DROP FUNCTION knowledge_index_terms(bigint, tsvector);

DROP FUNCTION knowledge_terms(bigint, text);
-- knowledge_terms answers the words of a query that a keyword search looks for in a
-- repository, with their weights: the rarest first, until the chunks that have one
-- of them are as many as are worth ranking. So a whole prompt can be a query.
CREATE FUNCTION knowledge_terms(repository bigint, query text)
RETURNS TABLE (word text, weight double precision, sought boolean)
LANGUAGE sql STABLE ROWS 8 AS $$
    WITH total AS (
        SELECT greatest(coalesce(max(w.chunks), 0), 1)::double precision AS chunks
          FROM repository_words w WHERE w.repository_id = repository AND w.word = ''
    ), asked AS (
        SELECT u.lexeme AS word, coalesce(w.chunks, 0) AS chunks
          FROM repositories r
         CROSS JOIN unnest(to_tsvector(r.language::regconfig, left(query, 100000))) u
          LEFT JOIN repository_words w ON w.repository_id = r.id AND w.word = u.lexeme
         WHERE r.id = repository
    ), ordered AS (
        SELECT a.word, a.chunks,
               sum(a.chunks) FILTER (WHERE a.chunks > 0) OVER (ORDER BY a.chunks, a.word) AS reached,
               count(*) FILTER (WHERE a.chunks > 0) OVER (ORDER BY a.chunks, a.word) AS place
          FROM asked a
    )
    SELECT o.word, ln(1 + (t.chunks - least(o.chunks, t.chunks) + 0.5) / (o.chunks + 0.5)) + 0.05,
           o.chunks > 0 AND (o.place <= 2 OR o.reached <= 2000 AND o.place <= 24)
      FROM ordered o, total t
$$;

-- knowledge_matching answers the chunks of a repository that a text finds by its
-- words. Quotation marks, OR and a leading - mean what they mean in web searches;
-- without them every rare word counts, and no word must occur.
CREATE OR REPLACE FUNCTION knowledge_matching(repository bigint, query text, candidates integer, filter jsonb)
RETURNS TABLE (chunk_id bigint, relevance double precision)
LANGUAGE plpgsql STABLE ROWS 50 AS $$
DECLARE
    config regconfig;
    rank text;
    total double precision;
    wanted tsquery;
BEGIN
    SELECT r.language::regconfig INTO config FROM repositories r WHERE r.id = repository;
    -- A word ranks from 0.61, when it stands there once, to 1. A heading counts like the
    -- text: counted more, the passages of a chapter whose title has a word were all
    -- better than the one that is about it. Written out, because a loop over words
    -- for every chunk takes twice as long.
    SELECT string_agg(format('%s * ts_rank(''{1, 1, 1, 1}'', c.words, %L)', t.weight, quote_literal(t.word)), ' + ') FILTER (WHERE t.sought),
           string_agg(quote_literal(t.word), ' | ') FILTER (WHERE t.sought)::tsquery,
           sum(t.weight)
      INTO rank, wanted, total
      FROM knowledge_terms(repository, query) t;
    IF rank IS NULL THEN
        RETURN;
    END IF;
    IF length(query) <= 500 AND query ~ '"|(^|\s)-\w|\sOR\s' THEN
        wanted := websearch_to_tsquery(config, query);
    END IF;
    RETURN QUERY EXECUTE format($q$
        SELECT c.id, (%s) / $5 AS found
          FROM chunks c
          JOIN documents d ON d.id = c.document_id AND d.version = c.version
         WHERE c.words @@ $2 AND c.repository_id = $1 AND ($3 IS NULL OR d.metadata @> $3)
         ORDER BY found DESC, c.id
         LIMIT $4
    $q$, rank) USING repository, wanted, filter, candidates, total;
END
$$;

-- knowledge_space_index answers the statement that makes the index of a space, null
-- when there is one or the space is so small that reading it all is faster and
-- exact. It cannot run here, because it must not lock the space.
CREATE OR REPLACE FUNCTION knowledge_space_index(space bigint) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    size integer;
    many boolean;
BEGIN
    SELECT dimensions INTO size FROM embedding_spaces WHERE id = space;
    IF size IS NULL OR EXISTS (SELECT FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
                                WHERE c.relname = format('chunk_vectors_%s_hnsw', space) AND i.indisvalid) THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*) >= 2000 FROM (SELECT FROM chunk_vectors_%s LIMIT 2000) v', space) INTO many;
    IF NOT many THEN
        RETURN NULL;
    END IF;
    RETURN format('CREATE INDEX CONCURRENTLY chunk_vectors_%1$s_hnsw ON chunk_vectors_%1$s USING hnsw ((embedding::halfvec(%2$s)) halfvec_cosine_ops) WITH (m = 16, ef_construction = 100)',
                  space, size);
END
$$;

ALTER TABLE chunk_vectors ALTER COLUMN embedding SET STORAGE EXTERNAL;

-- knowledge_nearest answers the chunks of a space nearest to a vector.
CREATE OR REPLACE FUNCTION knowledge_nearest(space bigint, query text, candidates integer, filter jsonb)
RETURNS TABLE (chunk_id bigint, similarity double precision)
LANGUAGE plpgsql STABLE ROWS 50 AS $$
DECLARE
    size integer;
BEGIN
    SELECT dimensions INTO size FROM embedding_spaces WHERE id = space;
    IF size IS NULL THEN
        -- As if its table had gone between the two statements.
        RAISE EXCEPTION 'the space % is gone', space USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true),
            set_config('hnsw.ef_search', least(greatest(2 * candidates, 100), 1000)::text, true);
    RETURN QUERY EXECUTE format($q$
        SELECT n.chunk_id, 1 - n.distance
          FROM (SELECT v.chunk_id, v.embedding::halfvec(%1$s) <=> $1::halfvec(%1$s) AS distance
                  FROM chunk_vectors_%2$s v
                  JOIN chunks c ON c.id = v.chunk_id
                  JOIN documents d ON d.id = c.document_id AND d.version = c.version
                 WHERE $3 IS NULL OR d.metadata @> $3
                 ORDER BY v.embedding::halfvec(%1$s) <=> $1::halfvec(%1$s)
                 LIMIT $2) n
         ORDER BY n.distance, n.chunk_id
    $q$, size, space) USING query, candidates, filter;
END
$$;
