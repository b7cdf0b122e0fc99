-- A number that was given back is nothing that the newest version could be above.
UPDATE documents SET uploaded = version WHERE status = 'ready';
ALTER TABLE documents
    DROP COLUMN ready_hash,
    DROP COLUMN ready_media_type,
    DROP COLUMN cut_chunks;
ALTER TABLE chunk_vectors DROP COLUMN cut;
