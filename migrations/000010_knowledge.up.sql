-- Knowledge: repositories of documents, their passages (chunks), the vectors of
-- these, and which of them an execution was given.

CREATE TABLE repositories (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE,
    description   text NOT NULL DEFAULT '',
    language      text NOT NULL DEFAULT 'english', -- a text search configuration
    chunk_tokens  integer NOT NULL,
    chunk_overlap integer NOT NULL,
    space_id      bigint, -- the vectors that searches use
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A space holds the vectors of one repository by one model. Vectors of different
-- models cannot be compared, so they never share one. A change of the model fills
-- a new space and then points the repository to it.
CREATE TABLE embedding_spaces (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    model         text NOT NULL, -- provider/model
    dimensions    integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000), -- the most an index can hold
    progress      integer NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100), -- while it is filled to take the place of another
    error         text, -- why that cannot be done
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX embedding_spaces_repository_idx ON embedding_spaces (repository_id);
ALTER TABLE repositories ADD FOREIGN KEY (space_id) REFERENCES embedding_spaces (id);

CREATE TABLE documents (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    name          text NOT NULL,
    version       integer NOT NULL DEFAULT 0, -- that searches see; 0 = none yet
    uploaded      integer NOT NULL DEFAULT 1, -- the newest version; above version while it is processed, or when it failed
    status        text NOT NULL DEFAULT 'processing' CHECK (status IN ('processing', 'ready', 'failed')), -- of the newest version
    error         text,
    progress      integer NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100),
    media_type    text NOT NULL DEFAULT '',
    bytes         bigint NOT NULL,
    content_hash  bytea NOT NULL,
    metadata      jsonb NOT NULL DEFAULT '{}',
    chunks        integer NOT NULL DEFAULT 0,
    tokens        bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (repository_id, name)
);

CREATE INDEX documents_processing_idx ON documents (id) WHERE status = 'processing';

-- What was uploaded, until it has become chunks.
CREATE TABLE document_uploads (
    document_id bigint NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    version     integer NOT NULL,
    media_type  text NOT NULL,
    metadata    jsonb NOT NULL,
    url         text, -- where it is to be fetched from; null when it is here
    data        bytea NOT NULL,
    PRIMARY KEY (document_id, version)
);

-- Chunks of all versions of documents; searches see those of documents.version.
CREATE TABLE chunks (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    document_id   bigint NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    version       integer NOT NULL,
    ordinal       integer NOT NULL, -- 0-based place in the document
    headings      text NOT NULL, -- from the title to the section, separated by " > "
    text          text NOT NULL,
    page          integer NOT NULL DEFAULT 0, -- 1-based; 0 in formats without pages
    tokens        integer NOT NULL,
    content_hash  bytea NOT NULL, -- of what is embedded: the same text is never embedded twice
    language      regconfig NOT NULL,
    words         tsvector NOT NULL GENERATED ALWAYS AS (
                      setweight(to_tsvector(language, headings), 'A') || setweight(to_tsvector(language, text), 'B')) STORED,
    UNIQUE (document_id, version, ordinal)
) WITH (toast_tuple_target = 8160); -- a search looks at the words of thousands of chunks: they are to stand in the row

CREATE INDEX chunks_words_idx ON chunks USING gin (words);
CREATE INDEX chunks_repository_idx ON chunks (repository_id, id);
CREATE INDEX chunks_content_idx ON chunks (content_hash);

-- How many chunks of a repository have a word: what tells rare words from common
-- ones, and so what a search is about from what it is written in. The word '' stands
-- for all its chunks.
CREATE TABLE repository_words (
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    word          text NOT NULL,
    chunks        bigint NOT NULL,
    PRIMARY KEY (repository_id, word)
) WITH (fillfactor = 70);

-- One partition a space, so that each has an index of its own over vectors of one
-- length, and goes as a whole.
CREATE TABLE chunk_vectors (
    chunk_id  bigint NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    space_id  bigint NOT NULL,
    embedding halfvec NOT NULL,
    PRIMARY KEY (chunk_id, space_id)
) PARTITION BY LIST (space_id);

-- knowledge_language_exists tells whether texts of a language can be searched by
-- their words.
CREATE FUNCTION knowledge_language_exists(language text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_ts_config WHERE cfgname = language AND pg_ts_config_is_visible(oid))
$$;

-- knowledge_space_add makes an empty space and answers its id.
CREATE FUNCTION knowledge_space_add(repository bigint, model_id text, size integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    added bigint;
BEGIN
    INSERT INTO embedding_spaces (repository_id, model, dimensions) VALUES (repository, model_id, size) RETURNING id INTO added;
    EXECUTE format('CREATE TABLE chunk_vectors_%s (LIKE chunk_vectors INCLUDING STORAGE, CHECK (vector_dims(embedding) = %s))', added, size);
    EXECUTE format('ALTER TABLE chunk_vectors ATTACH PARTITION chunk_vectors_%s FOR VALUES IN (%s)', added, added);
    RETURN added;
END
$$;

-- knowledge_space_drop removes a space that no repository points to.
CREATE FUNCTION knowledge_space_drop(space bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS chunk_vectors_%s', space);
    DELETE FROM embedding_spaces WHERE id = space;
END
$$;

-- knowledge_space_index answers the statement that makes the index of a space, null
-- when there is one or the space is so small that reading it all is faster and
-- exact. It cannot run here, because it must not lock the space.
CREATE FUNCTION knowledge_space_index(space bigint) RETURNS text
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

-- knowledge_count_words adds the words of chunks to those of their repository, or
-- takes them away with a sign of -1. In the order of words, so that two documents
-- do not wait for each other in a circle.
CREATE FUNCTION knowledge_count_words(document bigint, document_version integer, sign integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO repository_words AS w (repository_id, word, chunks)
    SELECT c.repository_id, u.word, sign * count(*)
      FROM chunks c, LATERAL (SELECT lexeme FROM unnest(c.words) UNION ALL SELECT '') u (word)
     WHERE c.document_id = document AND c.version = document_version
     GROUP BY c.repository_id, u.word
     ORDER BY c.repository_id, u.word
    ON CONFLICT (repository_id, word) DO UPDATE SET chunks = w.chunks + excluded.chunks
$$;

-- knowledge_nearest answers the chunks of a space nearest to a vector.
CREATE FUNCTION knowledge_nearest(space bigint, query text, candidates integer, filter jsonb)
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
CREATE FUNCTION knowledge_matching(repository bigint, query text, candidates integer, filter jsonb)
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

-- knowledge_search answers the chunks of several repositories as one list, best
-- first. A long query is asked in parts, and of a chunk that several of them find
-- the best one counts. query_vectors[i] is a part as vector_spaces[i] embeds it.
-- The score of a hybrid search is the reciprocal rank fusion of both lists
-- (Cormack, Clarke, Büttcher 2009, with their constant 60), divided by what the first
-- of both lists would have: 1 is the best, as in the other searches.
CREATE FUNCTION knowledge_search(repository_ids bigint[], mode text, queries text[], vector_spaces bigint[], query_vectors text[],
                                 candidates integer, filter jsonb)
RETURNS TABLE (chunk_id bigint, vector_rank integer, vector_score double precision, keyword_rank integer, keyword_score double precision,
               score double precision)
LANGUAGE sql STABLE ROWS 50 AS $$
    WITH nearest AS (
        -- Similarities by different models are not on one scale, ranks are.
        SELECT n.chunk_id, least(greatest(max(n.similarity), 0), 1) AS similarity,
               (row_number() OVER (PARTITION BY s.model, s.dimensions ORDER BY max(n.similarity) DESC, n.chunk_id))::integer AS place
          FROM unnest(vector_spaces, query_vectors) q (space_id, embedded)
          LEFT JOIN embedding_spaces s ON s.id = q.space_id
         CROSS JOIN LATERAL knowledge_nearest(q.space_id, q.embedded, candidates, filter) n
         WHERE mode <> 'keyword'
         GROUP BY n.chunk_id, s.model, s.dimensions
    ), matching AS (
        SELECT m.chunk_id, max(m.relevance) AS relevance, (row_number() OVER (ORDER BY max(m.relevance) DESC, m.chunk_id))::integer AS place
          FROM unnest(repository_ids) r (id)
         CROSS JOIN unnest(queries) q (part)
         CROSS JOIN LATERAL knowledge_matching(r.id, q.part, candidates, filter) m
         WHERE mode <> 'vector'
         GROUP BY m.chunk_id
    ), fused AS (
        SELECT coalesce(n.chunk_id, m.chunk_id) AS chunk_id, n.place AS vector_rank, n.similarity, m.place AS keyword_rank, m.relevance,
               CASE mode WHEN 'vector' THEN n.similarity
                         WHEN 'keyword' THEN m.relevance
                         ELSE (coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + m.place), 0)) / (2.0 / 61)
               END::double precision AS score
          FROM nearest n
          FULL JOIN matching m ON m.chunk_id = n.chunk_id
    )
    SELECT f.chunk_id, f.vector_rank, f.similarity, f.keyword_rank, f.relevance, f.score
      FROM fused f
     ORDER BY f.score DESC, f.chunk_id
$$;

-- knowledge_index_use tells whether there is an index over the vectors of a space,
-- and whether this transaction has used it.
CREATE FUNCTION knowledge_index_use(space bigint) RETURNS TABLE (present boolean, used boolean)
LANGUAGE sql VOLATILE ROWS 1 AS $$
    SELECT count(*) > 0, coalesce(sum(pg_stat_get_xact_numscans(i.indexrelid)), 0) > 0
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_am a ON a.oid = c.relam
     WHERE i.indrelid = to_regclass(format('chunk_vectors_%s', space)) AND i.indisvalid AND a.amname = 'hnsw'
$$;

-- Which chunks a prompt was given, and why: a projection of knowledge-retrieved.
CREATE TABLE retrievals (
    execution_id     bigint NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    prompt_id        bigint NOT NULL,
    seq              bigint NOT NULL, -- of the event
    place            integer NOT NULL, -- 1-based, in the list of the search
    citation         integer, -- the number in the prompt; null = cut by the budget
    repository_id    bigint NOT NULL,
    document_id      bigint NOT NULL,
    document_version integer NOT NULL,
    chunk_id         bigint NOT NULL,
    vector_rank      integer,
    vector_score     double precision,
    keyword_rank     integer,
    keyword_score    double precision,
    rerank_rank      integer, -- in the order of the rerank hook; null = there was none
    rerank_score     double precision,
    score            double precision NOT NULL, -- 0–1
    PRIMARY KEY (execution_id, prompt_id, seq, place)
);

CREATE INDEX retrievals_document_idx ON retrievals (document_id, execution_id);

CREATE OR REPLACE VIEW v_retrievals AS
SELECT ev.execution_id,
       e.chain_name,
       (ev.event_data ->> 'promptId')::bigint AS prompt_id,
       (ev.event_data ->> 'documentsFound')::integer AS documents_found,
       (ev.event_data ->> 'relevanceScore')::double precision AS relevance_score,
       (ev.event_data ->> 'tokens')::integer AS tokens,
       ev.event_data ->> 'error' AS error,
       ev.created_at,
       ev.seq,
       jsonb_array_length(coalesce(ev.event_data -> 'chunks', '[]')) AS chunks,
       jsonb_array_length(coalesce(ev.event_data -> 'cut', '[]')) AS chunks_cut
  FROM events ev
  JOIN executions e ON e.id = ev.execution_id
 WHERE ev.event_type = 'knowledge-retrieved';

CREATE VIEW v_retrieved_chunks AS
SELECT r.execution_id,
       e.chain_name,
       r.prompt_id,
       r.seq,
       r.place,
       r.citation,
       r.citation IS NOT NULL AS used,
       r.repository_id,
       r.document_id,
       r.document_version,
       d.name AS document_name, -- null when the document is gone
       r.chunk_id,
       r.vector_rank,
       r.vector_score,
       r.keyword_rank,
       r.keyword_score,
       r.rerank_rank,
       r.rerank_score,
       r.score
  FROM retrievals r
  JOIN executions e ON e.id = r.execution_id
  LEFT JOIN documents d ON d.id = r.document_id;
