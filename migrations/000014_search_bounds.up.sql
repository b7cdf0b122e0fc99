-- knowledge_terms answers the words of a query that a keyword search looks for in a
-- repository, with their weights: the rarest first, until the chunks that have one
-- of them are as many as are worth ranking. So a whole prompt can be a query. Where
-- even the rarest is in very many chunks, those that have several at once are looked
-- for: as many words as it takes, by their numbers, to find few enough. share is how
-- many of the chunks have a word, 0–1. A product of very many shares is as small as it
-- can be: exp answers an error, not 0, where a number is too small.
CREATE OR REPLACE FUNCTION knowledge_terms(repository bigint, query text)
RETURNS TABLE (word text, weight double precision, sought boolean, together boolean, share double precision)
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
        SELECT a.word, a.chunks, t.chunks AS total,
               sum(a.chunks) FILTER (WHERE a.chunks > 0) OVER w AS reached,
               count(*) FILTER (WHERE a.chunks > 0) OVER w AS place,
               min(a.chunks) FILTER (WHERE a.chunks > 0) OVER () > 5000 AS together,
               t.chunks * exp(greatest(sum(ln(least(a.chunks / t.chunks, 1))) FILTER (WHERE a.chunks > 0) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), -700)) AS expected -- of those before
          FROM asked a, total t
        WINDOW w AS (ORDER BY a.chunks, a.word)
    )
    SELECT o.word, ln(1 + (o.total - least(o.chunks, o.total) + 0.5) / (o.chunks + 0.5)) + 0.05,
           o.chunks > 0 AND (o.place = 1 OR CASE WHEN o.together THEN o.expected > 5000 ELSE o.place = 2 AND o.reached <= 5000 OR o.place <= 24 AND o.reached <= 2000 END),
           coalesce(o.together, false),
           least(o.chunks / o.total, 1)
      FROM ordered o
$$;

-- knowledge_matching answers the chunks of a repository that a text finds by its
-- words. Quotation marks, OR and a leading - mean what they mean in web searches;
-- without them every rare word counts, and no word must occur. What has no end is cut
-- off: of chunks that match, 10,000 are ranked, and of chunks that have the words of
-- a query with such operators, 50,000 are looked at.
CREATE OR REPLACE FUNCTION knowledge_matching(repository bigint, query text, candidates integer, filter jsonb)
RETURNS TABLE (chunk_id bigint, relevance double precision)
LANGUAGE plpgsql STABLE ROWS 50 AS $$
DECLARE
    rank text;
    total double precision;
    alone tsquery; -- the words looked for, any of them
    wanted tsquery; -- any or all of them, or as in web searches
    everywhere boolean; -- so many chunks match that going along all finds enough the fastest
    web boolean := length(query) <= 500 AND query ~ '"|(^|\s)-\w|\sOR\s';
    source text;
    indexed tsquery;
    early boolean := filter IS NOT NULL; -- whether documents are looked up before chunks are ranked
    ids bigint[] := '{}';
    scores double precision[] := '{}';
    ranked integer;
BEGIN
    -- A word ranks from 0.61, when it stands there once, to 1. A heading counts like the
    -- text: counted more, the passages of a chapter whose title has a word were all
    -- better than the one that is about it. Written out, because a loop over words
    -- for every chunk takes twice as long.
    SELECT string_agg(format('%s * ts_rank(''{1, 1, 1, 1}'', c.words, %L)', t.weight, quote_literal(t.word)), ' + ') FILTER (WHERE t.sought),
           string_agg(quote_literal(t.word), ' | ') FILTER (WHERE t.sought)::tsquery,
           string_agg(quote_literal(t.word), CASE WHEN t.together THEN ' & ' ELSE ' | ' END) FILTER (WHERE t.sought)::tsquery,
           CASE WHEN bool_or(t.together) THEN exp(greatest(sum(ln(t.share)) FILTER (WHERE t.sought), -700)) ELSE sum(t.share) FILTER (WHERE t.sought) END > 0.3,
           sum(t.weight)
      INTO rank, alone, wanted, everywhere, total
      FROM knowledge_terms(repository, query) t;
    IF rank IS NULL THEN
        RETURN;
    END IF;
    IF web THEN
        SELECT websearch_to_tsquery(r.language::regconfig, query) INTO wanted FROM repositories r WHERE r.id = repository;
        alone := wanted;
    END IF;
    -- A bitmap that does not fit is a bitmap of pages, and each of their chunks is looked at.
    PERFORM set_config('work_mem', '64MB', true) WHERE pg_size_bytes(current_setting('work_mem')) < 64 * 1024 * 1024;
    PERFORM set_config('max_parallel_workers_per_gather', '0', true); -- to start them takes longer
    LOOP
        -- The index knows no order of words, and nothing of words that must not occur.
        indexed := regexp_replace(regexp_replace(nullif(querytree(wanted), 'T'), '<[-0-9]+>', '&', 'g'),
                                  $r$'((?:[^']|'')*)'$r$, format($r$'%s \1'$r$, repository), 'g')::tsquery;
        source := CASE WHEN web AND numnode(indexed) > 0
                       THEN '(SELECT c.* FROM chunks c WHERE knowledge_index_terms(c.repository_id, c.words) @@ $2 LIMIT 50000) c'
                       WHEN web THEN '(SELECT c.* FROM chunks c WHERE c.repository_id = $1 LIMIT 50000) c'
                       ELSE 'chunks c'
                  END || CASE WHEN early THEN ' JOIN documents d ON d.id = c.document_id AND d.version = c.version AND ($4 IS NULL OR d.metadata @> $4)' ELSE '' END
                      || CASE WHEN web THEN ' WHERE c.words @@ $3'
                              WHEN everywhere THEN ' WHERE c.repository_id = $1 AND c.words @@ $3'
                              ELSE ' WHERE knowledge_index_terms(c.repository_id, c.words) @@ $2'
                         END;
        EXECUTE format($q$
            SELECT $7 || array_agg(m.id) FILTER (WHERE d.id IS NOT NULL), $8 || array_agg(m.found) FILTER (WHERE d.id IS NOT NULL), count(*)
              FROM (SELECT c.id, c.document_id, c.version, (%s) / $6 AS found
                      FROM (SELECT c.id, c.document_id, c.version, c.words FROM %s LIMIT 10000) c
                     ORDER BY found DESC, c.id
                     LIMIT 2 * $5) m
              LEFT JOIN documents d ON d.id = m.document_id AND d.version = m.version
        $q$, rank, source)
           INTO ids, scores, ranked
          USING repository, indexed, wanted, filter, candidates, total, ids, scores;
        IF cardinality(ids) >= candidates THEN
            EXIT;
        ELSIF NOT early AND ranked = 2 * candidates THEN
            early := true; -- versions that searches do not see stand before others
        ELSIF wanted <> alone THEN
            wanted := alone; -- too few chunks have all of the words
            everywhere := true;
        ELSE
            EXIT;
        END IF;
    END LOOP;
    RETURN QUERY SELECT u.id, max(u.found) FROM unnest(ids, scores) u (id, found) GROUP BY u.id ORDER BY 2 DESC, 1 LIMIT candidates;
END
$$;
