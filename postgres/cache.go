package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/executor"
)

// AskCache implements executor.Cache.
func (s *Store) AskCache(ctx context.Context, q executor.CacheQuestion, holder uuid.UUID, lease time.Duration) (executor.CacheState, error) {
	for {
		rows, err := s.queries.ResponseCacheFind(ctx, q.Key[:])
		if err != nil {
			return executor.CacheState{}, fmt.Errorf("look into the response cache: %w", translate(err))
		}
		if len(rows) > 0 {
			return cacheState(rows[0]), nil
		}
		n, err := s.queries.ResponseCacheClaim(ctx, db.ResponseCacheClaimParams{
			Key: q.Key[:], ChainID: q.ChainID, PromptID: q.PromptID, ModelID: q.Model,
			Holder: uuid.NullUUID{UUID: holder, Valid: true}, Lease: lease,
		})
		if err != nil {
			return executor.CacheState{}, fmt.Errorf("claim a place in the response cache: %w", translate(err))
		}
		if n == 1 {
			return executor.CacheState{Holder: holder}, nil
		}
		// Somebody came in between: look at what they have made of it.
	}
}

func cacheState(r db.ResponseCacheFindRow) executor.CacheState {
	if r.Holder.Valid {
		return executor.CacheState{Holder: r.Holder.UUID}
	}
	return executor.CacheState{Answer: &executor.CachedAnswer{
		Text: deref(r.Output), FinishReason: deref(r.FinishReason), InputTokens: r.InputTokens, OutputTokens: r.OutputTokens,
		CostUSD: optional(r.CostUSD), ExecutionID: deref(r.ExecutionID), RequestID: r.RequestID.UUID,
		Age: time.Duration(max(r.AgeMs, 0)) * time.Millisecond,
	}}
}

// RenewCache implements executor.Cache.
func (s *Store) RenewCache(ctx context.Context, held map[executor.CacheKey]uuid.UUID, lease time.Duration) error {
	p := db.ResponseCacheRenewParams{Lease: lease, Keys: make([][]byte, 0, len(held)), Holders: make([]uuid.UUID, 0, len(held))}
	for key, holder := range held {
		p.Keys = append(p.Keys, key[:])
		p.Holders = append(p.Holders, holder)
	}
	if err := s.queries.ResponseCacheRenew(ctx, p); err != nil {
		return fmt.Errorf("renew leases of the response cache: %w", translate(err))
	}
	return nil
}

// errChainGone says that an answer is of a chain that has been deleted.
var errChainGone = errors.New("the chain has been deleted")

// KeepAnswer implements executor.Cache. The answer of an execution that has been
// erased, or of a chain that has been deleted, is not kept: that is an error.
func (s *Store) KeepAnswer(ctx context.Context, q executor.CacheQuestion, a executor.CachedAnswer, ttl time.Duration) error {
	documents := q.Documents
	if documents == nil {
		documents = []int64{}
	}
	n, err := s.queries.ResponseCacheKeep(ctx, db.ResponseCacheKeepParams{
		Key: q.Key[:], ChainID: q.ChainID, PromptID: q.PromptID, ModelID: q.Model, TTL: ttl,
		Output: &a.Text, FinishReason: &a.FinishReason, InputTokens: a.InputTokens, OutputTokens: a.OutputTokens, CostUSD: a.CostUSD,
		ExecutionID: &a.ExecutionID, RequestID: uuid.NullUUID{UUID: a.RequestID, Valid: true}, DocumentIds: documents,
	})
	if err == nil && n == 0 {
		err = errChainGone
	}
	if err != nil {
		return fmt.Errorf("write to the response cache: %w", translate(err))
	}
	return nil
}

// ReleaseCache implements executor.Cache.
func (s *Store) ReleaseCache(ctx context.Context, key executor.CacheKey, holder uuid.UUID) error {
	if err := s.queries.ResponseCacheRelease(ctx, db.ResponseCacheReleaseParams{Key: key[:], Holder: holder}); err != nil {
		return fmt.Errorf("release a place in the response cache: %w", translate(err))
	}
	return nil
}

// CountCacheHits implements executor.Cache.
func (s *Store) CountCacheHits(ctx context.Context, hits map[executor.CacheKey]int64) error {
	p := db.ResponseCacheCountParams{Keys: make([][]byte, 0, len(hits)), Hits: make([]int64, 0, len(hits))}
	for key, n := range hits {
		p.Keys = append(p.Keys, key[:])
		p.Hits = append(p.Hits, n)
	}
	if err := s.queries.ResponseCacheCount(ctx, p); err != nil {
		return fmt.Errorf("count uses of the response cache: %w", translate(err))
	}
	return nil
}

// ForgetDocuments removes the cached answers to questions that held text of
// documents, and answers how many there were.
func (s *Store) ForgetDocuments(ctx context.Context, ids ...int64) (int64, error) {
	n, err := s.queries.ResponseCacheForgetDocuments(ctx, ids)
	if err != nil {
		return 0, fmt.Errorf("forget answers about documents: %w", translate(err))
	}
	return n, nil
}

// expireBatch is how many rows one statement of ExpireCache removes.
const expireBatch = 1000

// ExpireCache removes what has expired in the response cache, portion by portion,
// and answers how much it was.
func (s *Store) ExpireCache(ctx context.Context) (int64, error) {
	var removed int64
	for {
		n, err := s.queries.ResponseCacheExpire(ctx, expireBatch)
		if err != nil {
			return removed, fmt.Errorf("remove expired answers: %w", translate(err))
		}
		removed += n
		if n < expireBatch {
			return removed, nil
		}
	}
}
