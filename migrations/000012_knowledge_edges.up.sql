-- Number 11 are the tables of the queue of background work (postgres/migrate.go).

-- What the version of a document was made of that searches see: an address that is
-- fetched again and has the same changes nothing. Null = none yet, or not known.
ALTER TABLE documents
    ADD COLUMN ready_hash       bytea,
    ADD COLUMN ready_media_type text;
UPDATE documents SET ready_hash = content_hash, ready_media_type = media_type WHERE status = 'ready';
