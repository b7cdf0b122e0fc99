-- Number 11 are the tables of the queue of background work (postgres/migrate.go).

-- What the version of a document was made of that searches see: an address that is
-- fetched again and has the same changes nothing. Null = none yet, or not known.
ALTER TABLE documents
    ADD COLUMN ready_hash       bytea,
    ADD COLUMN ready_media_type text;
UPDATE documents SET ready_hash = content_hash, ready_media_type = media_type WHERE status = 'ready';

-- Whether a vector stands for the beginning of its text alone, because the model reads no
-- more; and how many passages of a document that searches see have such a vector.
ALTER TABLE chunk_vectors ADD COLUMN cut boolean NOT NULL DEFAULT false;
ALTER TABLE documents ADD COLUMN cut_chunks integer NOT NULL DEFAULT 0;
