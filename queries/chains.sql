-- name: ChainInsert :one
INSERT INTO chains (name) VALUES (@name)
ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING
RETURNING id;

-- name: ChainLock :one
-- ChainLock locks a chain for a new version.
SELECT * FROM chains WHERE id = @id AND deleted_at IS NULL FOR UPDATE;

-- name: ChainIDByName :one
SELECT id FROM chains WHERE name = @name AND deleted_at IS NULL;

-- name: ChainSetVersion :exec
UPDATE chains SET version = @version, name = @name, concurrency = sqlc.narg('concurrency'), updated_at = clock_timestamp() WHERE id = @id;

-- name: ChainVersionInsert :one
INSERT INTO chain_versions (chain_id, version, description, document, prompt_ids)
VALUES (@chain_id, @version, @description, @document, @prompt_ids)
RETURNING created_at;

-- name: ChainPromptEnsure :many
-- ChainPromptEnsure answers the ids of a chain's prompts by slug and makes
-- those that are missing.
WITH wanted AS (
    SELECT unnest(@slugs::text[]) AS slug
), made AS (
    INSERT INTO chain_prompts (chain_id, slug)
    SELECT @chain_id, w.slug FROM wanted w
    ON CONFLICT (chain_id, slug) DO NOTHING
    RETURNING id, slug
)
SELECT id, slug FROM made
UNION ALL
SELECT p.id, p.slug FROM chain_prompts p JOIN wanted w ON w.slug = p.slug WHERE p.chain_id = @chain_id;

-- name: ChainVersionByID :one
-- ChainVersionByID answers a version of a chain; version 0 is the newest.
SELECT sqlc.embed(c), sqlc.embed(v)
  FROM chains c
  JOIN chain_versions v ON v.chain_id = c.id
   AND v.version = CASE WHEN @version::integer = 0 THEN c.version ELSE @version::integer END
 WHERE c.id = @id AND c.deleted_at IS NULL;

-- name: ChainVersionByName :one
SELECT sqlc.embed(c), sqlc.embed(v)
  FROM chains c
  JOIN chain_versions v ON v.chain_id = c.id
   AND v.version = CASE WHEN @version::integer = 0 THEN c.version ELSE @version::integer END
 WHERE c.name = @name AND c.deleted_at IS NULL;

-- name: ChainVersionPinned :one
-- ChainVersionPinned answers the version an execution runs, also of a deleted chain.
SELECT sqlc.embed(c), sqlc.embed(v)
  FROM chains c
  JOIN chain_versions v ON v.chain_id = c.id AND v.version = @version
 WHERE c.id = @id;

-- name: ChainList :many
-- ChainList answers chains by id, above the cursor, in their newest version.
SELECT sqlc.embed(c), sqlc.embed(v)
  FROM chains c
  JOIN chain_versions v ON v.chain_id = c.id AND v.version = c.version
 WHERE c.deleted_at IS NULL AND c.id > @after_id
 ORDER BY c.id
 LIMIT @max_rows;

-- name: ChainVersionList :many
-- ChainVersionList answers the versions of a chain, newest first, below the cursor.
SELECT version, description, created_at FROM chain_versions
 WHERE chain_id = @chain_id AND (sqlc.narg('before')::integer IS NULL OR version < sqlc.narg('before'))
 ORDER BY version DESC
 LIMIT @max_rows;

-- name: ChainDelete :execrows
UPDATE chains SET deleted_at = clock_timestamp() WHERE id = @id AND deleted_at IS NULL;
