-- name: RepositoryInsert :one
INSERT INTO repositories (name, description, language, chunk_tokens, chunk_overlap)
VALUES (@name, @description, @language, @chunk_tokens, @chunk_overlap)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: RepositorySetSpace :exec
UPDATE repositories SET space_id = @space_id, updated_at = clock_timestamp() WHERE id = @id;

-- name: SpacesLock :exec
-- SpacesLock lets one transaction at a time make and drop spaces: each needs locks on
-- several tables.
SELECT pg_advisory_xact_lock(hashtext('chainstream knowledge spaces'));

-- name: SpaceAdd :one
-- SpaceAdd does not wait for long for the table of all vectors: who stores some, waits behind it.
SELECT knowledge_space_add(@repository_id::bigint, @model::text, @dimensions::integer)::bigint AS id
  FROM set_config('lock_timeout', '3s', true);

-- name: SpaceDrop :exec
-- SpaceDrop waits as SpaceAdd does.
SELECT knowledge_space_drop(@space_id::bigint) FROM set_config('lock_timeout', '3s', true);

-- name: SpaceIndex :one
-- SpaceIndex answers the statement that makes the index of a space, "" when none is
-- needed.
SELECT coalesce(knowledge_space_index(@space_id::bigint), '')::text AS statement;

-- name: SpaceSize :one
-- SpaceSize answers how many vectors a space has, and their length.
SELECT (SELECT count(*) FROM chunk_vectors v WHERE v.space_id = s.id) AS vectors, s.dimensions
  FROM embedding_spaces s
 WHERE s.id = @space_id;

-- name: RepositorySpaces :many
SELECT id FROM embedding_spaces WHERE repository_id = @repository_id;

-- name: RepositoryPage :many
-- RepositoryPage answers repositories by id, above after_id.
SELECT r.id, r.name, r.description, r.language, r.chunk_tokens, r.chunk_overlap, r.created_at, r.updated_at,
       s.id AS space_id, s.model, s.dimensions,
       coalesce(b.id, 0)::bigint AS building_id, coalesce(b.model, '')::text AS building_model, coalesce(b.dimensions, 0)::integer AS building_dimensions,
       coalesce(b.progress, 0)::integer AS building_progress, coalesce(b.error, '')::text AS building_error,
       (SELECT count(*) FROM documents d WHERE d.repository_id = r.id) AS documents,
       (SELECT count(*) FROM documents d WHERE d.repository_id = r.id AND d.status = 'processing') AS pending,
       (SELECT coalesce(sum(d.chunks), 0) FROM documents d WHERE d.repository_id = r.id)::bigint AS chunks
  FROM repositories r
  JOIN embedding_spaces s ON s.id = r.space_id
  LEFT JOIN embedding_spaces b ON b.repository_id = r.id AND b.id > s.id
 WHERE r.id > @after_id AND (@only_id::bigint = 0 OR r.id = @only_id::bigint)
 ORDER BY r.id
 LIMIT @max_rows;

-- name: SpacesInUse :many
-- SpacesInUse answers the spaces that searches of repositories use. It is asked by
-- every search, so it counts nothing.
SELECT r.id AS repository_id, s.id, s.model, s.dimensions
  FROM repositories r
  JOIN embedding_spaces s ON s.id = r.space_id
 WHERE r.id = ANY(@repositories::bigint[]);

-- name: RepositoryUpdate :one
UPDATE repositories SET name = @name, description = @description, updated_at = clock_timestamp() WHERE id = @id RETURNING id;

-- name: RepositoryDelete :execrows
DELETE FROM repositories WHERE id = @id;

-- name: RepositoriesMissing :many
SELECT x.id::bigint AS id FROM unnest(@ids::bigint[]) AS x (id) WHERE NOT EXISTS (SELECT FROM repositories r WHERE r.id = x.id);

-- name: DocumentUpsert :one
-- DocumentUpsert makes a document, or the next version of one. Its metadata are
-- those of the version that searches see, until the new one takes its place.
INSERT INTO documents (repository_id, name, media_type, bytes, content_hash, metadata)
VALUES (@repository_id, @name, @media_type, @bytes, @content_hash, @metadata)
ON CONFLICT (repository_id, name) DO UPDATE
   SET uploaded = documents.uploaded + 1, status = 'processing', error = NULL, progress = 0, media_type = excluded.media_type,
       bytes = excluded.bytes, content_hash = excluded.content_hash, updated_at = clock_timestamp()
RETURNING *;

-- name: DocumentByName :one
SELECT * FROM documents WHERE repository_id = @repository_id AND name = @name FOR UPDATE;

-- name: DocumentUploadInsert :exec
INSERT INTO document_uploads (document_id, version, media_type, metadata, url, data) VALUES (@document_id, @version, @media_type, @metadata, sqlc.narg('url'), @data);

-- name: DocumentUploadsDelete :exec
DELETE FROM document_uploads WHERE document_id = @document_id AND version <= @version;

-- name: DocumentUploadGet :one
-- DocumentUploadGet answers an upload; what has become chunks needs its data no more.
SELECT d.name, d.repository_id, u.media_type, u.metadata, coalesce(u.url, '')::text AS url, c.chunks, CASE WHEN c.chunks = 0 THEN u.data ELSE '' END::bytea AS data
  FROM document_uploads u
 CROSS JOIN LATERAL (SELECT count(*) AS chunks FROM chunks c WHERE c.document_id = u.document_id AND c.version = u.version) c
  JOIN documents d ON d.id = u.document_id AND d.uploaded = u.version AND d.status = 'processing'
 WHERE u.document_id = @document_id AND u.version = @version;

-- name: DocumentGet :one
SELECT * FROM documents WHERE repository_id = @repository_id AND id = @id;

-- name: DocumentHold :one
SELECT id FROM documents WHERE repository_id = @repository_id AND id = @id FOR UPDATE;

-- name: DocumentPage :many
SELECT * FROM documents
 WHERE repository_id = @repository_id AND id > @after_id AND (@status::text = '' OR status = @status::text)
 ORDER BY id
 LIMIT @max_rows;

-- name: DocumentLock :one
-- DocumentLock locks a version that is being processed; no row when it is no
-- longer the newest.
SELECT * FROM documents WHERE id = @id AND uploaded = @version AND status = 'processing' FOR UPDATE;

-- name: DocumentDelete :one
-- DocumentDelete notes that the document is gone.
WITH gone AS (
    DELETE FROM documents d WHERE d.repository_id = @repository_id AND d.id = @id RETURNING d.id, d.repository_id
)
INSERT INTO document_deletions (document_id, repository_id) SELECT g.id, g.repository_id FROM gone g
RETURNING document_id;

-- name: DocumentDeletionsExpire :execrows
-- DocumentDeletionsExpire skips rows that another server is at.
DELETE FROM document_deletions f
 WHERE f.document_id IN (SELECT x.document_id FROM document_deletions x
                          WHERE x.deleted_at < clock_timestamp() - @age::interval
                          ORDER BY x.deleted_at LIMIT @max_rows FOR UPDATE SKIP LOCKED);

-- name: DocumentProgress :execrows
-- DocumentProgress also forgets why an earlier try has failed.
UPDATE documents SET progress = greatest(progress, @percent::integer), error = NULL, updated_at = clock_timestamp()
 WHERE id = @id AND uploaded = @version AND status = 'processing';

-- name: DocumentDelay :execrows
-- DocumentDelay notes why a try has failed that is not the last one.
UPDATE documents SET error = @reason::text, updated_at = clock_timestamp()
 WHERE id = @id AND uploaded = @version AND status = 'processing';

-- name: DocumentFail :one
-- DocumentFail answers the version that searches see, 0 when there is none.
UPDATE documents d SET status = 'failed', error = @reason::text, updated_at = clock_timestamp()
 WHERE d.id = @id AND d.uploaded = @version::integer AND d.status = 'processing'
RETURNING d.version;

-- name: DocumentPublish :exec
UPDATE documents d
   SET version = @version, status = 'ready', progress = 100, error = NULL, updated_at = clock_timestamp(),
       chunks = c.chunks, tokens = c.tokens, cut_chunks = c.cut, ready_hash = d.content_hash, ready_media_type = d.media_type,
       metadata = coalesce((SELECT u.metadata FROM document_uploads u WHERE u.document_id = d.id AND u.version = @version), d.metadata)
  FROM (SELECT count(*)::integer AS chunks, coalesce(sum(k.tokens), 0)::bigint AS tokens, (count(*) FILTER (WHERE v.cut))::integer AS cut
          FROM chunks k
          LEFT JOIN chunk_vectors v ON v.chunk_id = k.id AND v.space_id = @space_id::bigint
         WHERE k.document_id = @id AND k.version = @version) c
 WHERE d.id = @id;

-- name: ChunksInsert :exec
INSERT INTO chunks (repository_id, document_id, version, ordinal, headings, text, page, tokens, content_hash, language)
SELECT d.repository_id, d.id, @version::integer, c.ordinal, c.headings, c.text, c.page, c.tokens, c.content_hash, r.language::regconfig
  FROM documents d
  JOIN repositories r ON r.id = d.repository_id,
       (SELECT unnest(@ordinals::integer[]) AS ordinal, unnest(@headings::text[]) AS headings, unnest(@texts::text[]) AS text,
               unnest(@pages::integer[]) AS page, unnest(@tokens::integer[]) AS tokens, unnest(@content_hashes::bytea[]) AS content_hash) c
 WHERE d.id = @document_id::bigint
ON CONFLICT (document_id, version, ordinal) DO NOTHING;

-- name: ChunkVersionsDelete :exec
-- ChunkVersionsDelete removes the chunks of all versions of a document but one.
DELETE FROM chunks WHERE document_id = @document_id AND version <> @version;

-- name: ChunkCountWords :exec
SELECT knowledge_count_words(@document_id::bigint, @version::integer, @sign::integer);

-- name: ChunkForgetWords :exec
-- ChunkForgetWords takes the words of all versions of a document but one out of those of
-- its repository. In one go and in the order of words, as they are counted, so that two
-- documents do not wait for each other in a circle.
INSERT INTO repository_words AS w (repository_id, word, chunks)
SELECT c.repository_id, u.word, -count(*)
  FROM chunks c, LATERAL (SELECT lexeme FROM unnest(c.words) UNION ALL SELECT '') u (word)
 WHERE c.document_id = @document_id AND c.version <> @keep::integer
 GROUP BY c.repository_id, u.word
 ORDER BY c.repository_id, u.word
ON CONFLICT (repository_id, word) DO UPDATE SET chunks = w.chunks + excluded.chunks;

-- name: ChunksExist :one
SELECT EXISTS (SELECT FROM chunks WHERE document_id = @document_id AND version = @version)::boolean AS present;

-- name: ChunksUnembedded :many
SELECT c.id, c.ordinal, c.headings, c.text, c.page, c.tokens, c.content_hash
  FROM chunks c
 WHERE c.document_id = @document_id AND c.version = @version
   AND NOT EXISTS (SELECT FROM chunk_vectors v WHERE v.chunk_id = c.id AND v.space_id = @space_id::bigint)
 ORDER BY c.ordinal
 LIMIT @max_rows;

-- name: VectorsInsert :exec
INSERT INTO chunk_vectors (chunk_id, space_id, embedding, cut)
SELECT x.chunk_id, @space_id::bigint, x.embedding::halfvec, x.cut
  FROM (SELECT unnest(@chunk_ids::bigint[]) AS chunk_id, unnest(@embeddings::text[]) AS embedding, unnest(@cuts::boolean[]) AS cut) x
  JOIN chunks c ON c.id = x.chunk_id
ON CONFLICT (chunk_id, space_id) DO NOTHING;

-- name: KnowledgeSearch :many
-- KnowledgeSearch is the one search: see the function.
SELECT f.chunk_id::bigint AS chunk_id, coalesce(f.vector_rank, 0)::integer AS vector_rank, coalesce(f.vector_score, 0)::double precision AS vector_score,
       coalesce(f.keyword_rank, 0)::integer AS keyword_rank, coalesce(f.keyword_score, 0)::double precision AS keyword_score,
       f.score::double precision AS score,
       c.repository_id, c.document_id, c.version, c.ordinal, c.headings, c.text, c.page, c.tokens, d.name AS document_name, d.metadata
  FROM knowledge_search(@repositories::bigint[], @mode::text, @queries::text[], @vector_spaces::bigint[], @query_vectors::text[], @candidates::integer, sqlc.narg('filter')::jsonb) f
  JOIN chunks c ON c.id = f.chunk_id
  JOIN documents d ON d.id = c.document_id
 ORDER BY f.score DESC, f.chunk_id;

-- name: ChunkNeighbours :many
-- ChunkNeighbours answers the chunks around others in their documents.
SELECT c.id, c.document_id, c.ordinal, c.headings, c.text, c.page, c.tokens
  FROM (SELECT unnest(@document_ids::bigint[]) AS document_id, unnest(@versions::integer[]) AS version, unnest(@ordinals::integer[]) AS ordinal) x
  JOIN chunks c ON c.document_id = x.document_id AND c.version = x.version AND c.ordinal BETWEEN x.ordinal - @reach::integer AND x.ordinal + @reach::integer
 ORDER BY c.document_id, c.ordinal;

-- name: ChunkGet :one
-- ChunkGet answers a chunk that searches see.
SELECT c.id, c.repository_id, c.document_id, c.version, c.ordinal, c.headings, c.text, c.page, c.tokens, d.name AS document_name
  FROM chunks c
  JOIN documents d ON d.id = c.document_id AND d.version = c.version
 WHERE c.id = @id;

-- name: LanguageExists :one
SELECT knowledge_language_exists(@language::text)::boolean AS known;

-- name: DocumentSameMetadata :one
-- DocumentSameMetadata compares with the newest version.
SELECT (coalesce((SELECT u.metadata FROM document_uploads u WHERE u.document_id = d.id AND u.version = d.uploaded), d.metadata) = @metadata::jsonb)::boolean AS same
  FROM documents d
 WHERE d.id = @id;

-- name: SpaceIDs :many
SELECT id FROM embedding_spaces ORDER BY id;

-- name: RepositoryHold :one
-- RepositoryHold keeps the space of a repository as it is until the transaction ends.
SELECT r.space_id FROM repositories r JOIN documents d ON d.repository_id = r.id WHERE d.id = @document_id FOR SHARE OF r;

-- name: RepositoryLock :one
-- RepositoryLock does not keep rows that belong to the repository from being added.
SELECT space_id FROM repositories WHERE id = @id FOR NO KEY UPDATE;

-- name: VersionUnembedded :one
-- VersionUnembedded tells whether chunks of a version have no vector in a space.
SELECT EXISTS (
    SELECT FROM chunks c
     WHERE c.document_id = @document_id AND c.version = @version
       AND NOT EXISTS (SELECT FROM chunk_vectors v WHERE v.chunk_id = c.id AND v.space_id = @space_id::bigint))::boolean AS missing;

-- name: SpaceUnembedded :many
-- SpaceUnembedded answers chunks of a repository, above an id, that have no vector in
-- a space.
SELECT c.id, c.ordinal, c.headings, c.text, c.page, c.tokens, c.content_hash
  FROM chunks c
 WHERE c.repository_id = @repository_id AND c.id > @after_id
   AND NOT EXISTS (SELECT FROM chunk_vectors v WHERE v.chunk_id = c.id AND v.space_id = @space_id::bigint)
 ORDER BY c.id
 LIMIT @max_rows;

-- name: SpaceComplete :one
-- SpaceComplete tells whether all chunks that searches see have a vector in a space.
SELECT (NOT EXISTS (
    SELECT FROM chunks c
      JOIN documents d ON d.id = c.document_id AND d.version = c.version
     WHERE c.repository_id = @repository_id
       AND NOT EXISTS (SELECT FROM chunk_vectors v WHERE v.chunk_id = c.id AND v.space_id = @space_id::bigint)))::boolean AS complete;

-- name: SpaceProgress :execrows
-- SpaceProgress counts how far a space is filled.
UPDATE embedding_spaces s
   SET progress = least(99, 100 * (SELECT count(*) FROM chunk_vectors v WHERE v.space_id = s.id)
                          / greatest(1, (SELECT count(*) FROM chunks c WHERE c.repository_id = s.repository_id)))
 WHERE s.id = @id;

-- name: SpaceFail :execrows
UPDATE embedding_spaces SET error = @reason::text WHERE id = @id;

-- name: SpaceGet :one
SELECT id, repository_id, model, dimensions FROM embedding_spaces WHERE id = @id;

-- name: VectorsReuse :exec
-- VectorsReuse gives chunks the vectors that others with the same text have by the same
-- model, in any repository.
INSERT INTO chunk_vectors (chunk_id, space_id, embedding, cut)
SELECT DISTINCT ON (c.id) c.id, @space_id::bigint, v.embedding, v.cut
  FROM chunks c
  JOIN chunks same ON same.content_hash = c.content_hash AND same.id <> c.id
  JOIN embedding_spaces s ON s.model = @model::text AND s.dimensions = @dimensions::integer
  JOIN chunk_vectors v ON v.chunk_id = same.id AND v.space_id = s.id
 WHERE c.id = ANY(@chunk_ids::bigint[])
ON CONFLICT (chunk_id, space_id) DO NOTHING;

-- name: DocumentFetched :execrows
-- DocumentFetched stores what was at the address of an upload.
WITH stored AS (
    UPDATE document_uploads SET url = NULL, media_type = @media_type, data = @data WHERE document_id = @id AND document_uploads.version = @version
    RETURNING document_id
)
UPDATE documents d SET media_type = @media_type, bytes = @bytes, content_hash = @content_hash, updated_at = clock_timestamp()
  FROM stored s WHERE d.id = s.document_id AND d.uploaded = @version AND d.status = 'processing';

-- name: DocumentUnchanged :one
-- DocumentUnchanged takes back a version that is made of the same as the one that
-- searches see, with the same metadata, and answers the number of that one. The number
-- that was taken back is not given again: work on it may still be under way.
UPDATE documents d
   SET status = 'ready', progress = 100, error = NULL, media_type = d.ready_media_type, bytes = @bytes, content_hash = d.ready_hash,
       updated_at = clock_timestamp()
  FROM document_uploads u
 WHERE d.id = @id AND d.uploaded = @version AND d.status = 'processing' AND d.version > 0
   AND d.ready_hash = @content_hash AND d.ready_media_type = @media_type::text
   AND u.document_id = d.id AND u.version = d.uploaded AND u.metadata = d.metadata
RETURNING d.version;

-- name: RepositoryCountCut :exec
-- RepositoryCountCut counts anew which passages have a vector of their beginning alone,
-- in a space that searches begin to use.
UPDATE documents d SET cut_chunks = n.cut, updated_at = clock_timestamp()
  FROM (SELECT x.id, count(v.chunk_id)::integer AS cut
          FROM documents x
          LEFT JOIN chunks c ON c.document_id = x.id AND c.version = x.version
          LEFT JOIN chunk_vectors v ON v.chunk_id = c.id AND v.space_id = @space_id::bigint AND v.cut
         WHERE x.repository_id = @repository_id::bigint
         GROUP BY 1) n
 WHERE d.id = n.id AND d.cut_chunks <> n.cut;

-- name: DocumentChanges :many
-- DocumentChanges answers which documents of a repository have changed, or are gone, by
-- transactions that a snapshot did not see: a row for each, or one without an id; no row
-- when there is no such repository. cursor is the snapshot to ask from next.
SELECT pg_current_snapshot()::text AS cursor, pg_snapshot_xmax(pg_current_snapshot())::text AS newest,
       clock_timestamp()::timestamptz AS at, coalesce(c.id, 0)::bigint AS id, coalesce(c.deleted, false)::boolean AS deleted
  FROM repositories r
  LEFT JOIN LATERAL (
        SELECT d.id, false AS deleted, d.changed FROM documents d
         WHERE d.repository_id = r.id AND d.changed >= pg_snapshot_xmin((@since::text)::pg_snapshot)
           AND NOT pg_visible_in_snapshot(d.changed, (@since::text)::pg_snapshot)
        UNION ALL
        SELECT g.document_id, true, g.changed FROM document_deletions g
         WHERE g.repository_id = r.id AND g.changed >= pg_snapshot_xmin((@since::text)::pg_snapshot)
           AND NOT pg_visible_in_snapshot(g.changed, (@since::text)::pg_snapshot)) c ON true
 WHERE r.id = @repository_id
 ORDER BY c.changed, c.id;

-- name: DocumentsLatest :many
-- DocumentsLatest answers the documents that are processed and those that have changed
-- last, the latest at the end.
SELECT x.id FROM (
    SELECT d.id, d.changed FROM documents d WHERE d.repository_id = @repository_id
     ORDER BY d.status = 'processing' DESC, d.changed DESC LIMIT @max_rows) x
 ORDER BY x.changed, x.id;

-- name: DocumentsByID :many
SELECT * FROM documents WHERE repository_id = @repository_id AND id = ANY(@ids::bigint[]);
