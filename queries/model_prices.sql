-- name: ModelPriceList :many
-- ModelPriceList answers all prices; of each model the newest first. What has no
-- bound has Go's zero time.
SELECT p.model_id, coalesce(nullif(p.valid_from, '-infinity'), '0001-01-01 00:00:00+00')::timestamptz AS valid_from,
       coalesce(nullif(p.valid_until, 'infinity'), '0001-01-01 00:00:00+00')::timestamptz AS valid_until,
       p.input_usd, p.cached_input_usd, p.cache_write_usd, p.output_usd, p.source
  FROM model_prices p
 ORDER BY p.model_id, p.valid_from DESC;

-- name: ModelPriceSyncBegin :exec
-- ModelPriceSyncBegin makes the rest of the transaction a server's and not an
-- operator's, and waits for other servers that do the same.
SELECT pg_advisory_xact_lock(hashtext('chainstream.model_prices')), set_config('chainstream.price_sync', 'on', true);

-- name: ModelPriceSync :one
-- ModelPriceSync brings the prices of models to what is given, as far as they
-- differ and no operator has written any for the model; models that are not
-- given keep theirs. It answers how many rows it wrote or deleted.
WITH texts AS (
    SELECT unnest(@model_ids::text[]) AS model_id, unnest(@valid_from::text[]) AS valid_from, unnest(@valid_until::text[]) AS valid_until,
           unnest(@input_usd::text[]) AS input_usd, unnest(@cached_input_usd::text[]) AS cached_input_usd,
           unnest(@cache_write_usd::text[]) AS cache_write_usd, unnest(@output_usd::text[]) AS output_usd, unnest(@sources::text[]) AS source
), given AS (
    SELECT DISTINCT ON (t.model_id, 2)
           t.model_id, coalesce(nullif(t.valid_from, ''), '-infinity')::timestamptz AS valid_from,
           nullif(t.valid_until, '')::timestamptz AS valid_until, t.input_usd::numeric AS input_usd,
           nullif(t.cached_input_usd, '')::numeric AS cached_input_usd, nullif(t.cache_write_usd, '')::numeric AS cache_write_usd,
           t.output_usd::numeric AS output_usd, t.source
      FROM texts t
     ORDER BY t.model_id, 2
), ours AS (
    SELECT g.model_id, g.valid_from, g.valid_until, g.input_usd, g.cached_input_usd, g.cache_write_usd, g.output_usd, g.source FROM given g
     WHERE NOT EXISTS (SELECT FROM model_prices p WHERE p.model_id = g.model_id AND p.source = 'operator')
), stale AS (
    DELETE FROM model_prices p
     WHERE p.model_id IN (SELECT o.model_id FROM ours o)
       AND NOT EXISTS (SELECT FROM ours o WHERE o.model_id = p.model_id AND o.valid_from = p.valid_from)
    RETURNING p.model_id
), written AS (
    INSERT INTO model_prices AS p (model_id, valid_from, valid_until, input_usd, cached_input_usd, cache_write_usd, output_usd, source)
    SELECT o.model_id, o.valid_from, o.valid_until, o.input_usd, o.cached_input_usd, o.cache_write_usd, o.output_usd, o.source FROM ours o
    ON CONFLICT (model_id, valid_from) DO UPDATE
       SET valid_until = excluded.valid_until, input_usd = excluded.input_usd, cached_input_usd = excluded.cached_input_usd,
           cache_write_usd = excluded.cache_write_usd, output_usd = excluded.output_usd, source = excluded.source
     WHERE (p.valid_until, p.input_usd, p.cached_input_usd, p.cache_write_usd, p.output_usd, p.source)
           IS DISTINCT FROM (excluded.valid_until, excluded.input_usd, excluded.cached_input_usd, excluded.cache_write_usd, excluded.output_usd, excluded.source)
    RETURNING p.model_id
)
SELECT ((SELECT count(*) FROM stale) + (SELECT count(*) FROM written))::bigint AS changed;

-- name: MoneyState :one
-- MoneyState tells what a server has to read again: whether there are budgets,
-- and what changes with every change of a price.
SELECT EXISTS (SELECT FROM budgets)::boolean AS budgets,
       (SELECT count(*)::text || ' ' || coalesce(max(p.updated_at)::text, '') FROM model_prices p)::text AS prices;
