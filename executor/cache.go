package executor

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// CacheMode says how an execution uses the response cache.
type CacheMode string

// The modes of the response cache.
const (
	CacheOn      CacheMode = ""        // as the prompts say
	CacheRefresh CacheMode = "refresh" // the models are called, and their answers remembered
	CacheOff     CacheMode = "off"     // as if no prompt asked for it
)

// CacheKey stands for everything an answer depends on.
type CacheKey [sha256.Size]byte

// CacheQuestion is what the response cache is asked for.
type CacheQuestion struct {
	Key               CacheKey
	ChainID, PromptID int64
	Model             string  // provider/model
	Documents         []int64 // ids of those whose text is part of the question
}

// CachedAnswer is an answer in the response cache, and what it had cost.
type CachedAnswer struct {
	Text, FinishReason        string
	InputTokens, OutputTokens int64
	CostUSD                   *string // decimal; nil while unknown
	ExecutionID               int64   // that paid; its prompt-complete is stored
	RequestID                 uuid.UUID
	Age                       time.Duration
}

// CacheState is what the response cache says.
type CacheState struct {
	Answer *CachedAnswer // nil when there is none
	Holder uuid.UUID     // then: who is getting it
}

// Cache remembers answers for calls that ask exactly the same. Its clock is the
// database's.
type Cache interface {
	// AskCache answers the answer to a question. Where nobody has it and nobody
	// is getting it, the caller becomes its holder until the lease runs out.
	AskCache(ctx context.Context, q CacheQuestion, holder uuid.UUID, lease time.Duration) (CacheState, error)
	// RenewCache prolongs the leases of holders.
	RenewCache(ctx context.Context, held map[CacheKey]uuid.UUID, lease time.Duration) error
	// KeepAnswer stores an answer for a time, whoever is getting it.
	KeepAnswer(ctx context.Context, q CacheQuestion, a CachedAnswer, ttl time.Duration) error
	// ReleaseCache lets somebody else get the answer.
	ReleaseCache(ctx context.Context, key CacheKey, holder uuid.UUID) error
	// CountCacheHits adds up how often answers were used.
	CountCacheHits(ctx context.Context, hits map[CacheKey]int64) error
}

const (
	// MaxCachedBytes bounds an answer that is remembered.
	MaxCachedBytes = 256 << 10
	// cachePoll is the longest time between two looks at a call that another
	// process makes.
	cachePoll = 250 * time.Millisecond
	// cacheTimeout bounds a statement of the cache: who waits for it could be
	// calling the model.
	cacheTimeout = 2 * time.Second
	// maxHolders is how many calls of others may fail before a prompt that waited
	// for them makes its own, beside whoever else is at it.
	maxHolders = 2
)

// keyVersion changes when the meaning of a key does.
const keyVersion = 1

// source is a document whose text was placed into a prompt.
type source struct {
	ID, Version int64
}

// distinct sorts sources and drops those that are there twice.
func distinct(sources []source) []source {
	slices.SortFunc(sources, func(a, b source) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Version, b.Version)) })
	return slices.Compact(sources)
}

// cacheKey hashes all that the answer to a request depends on. The request is
// encoded as a whole, so that a field it gets one day counts without anybody
// thinking of it; images count by their content.
func cacheKey(v *chain.Version, slug, model string, sources []source, req llm.Request) (CacheKey, error) {
	req.Messages = slices.Clone(req.Messages)
	for i, m := range req.Messages {
		images := slices.Clone(m.Images)
		for j, image := range images {
			sum := sha256.Sum256(image.Data)
			images[j].Data = sum[:]
		}
		req.Messages[i].Images = images
	}
	doc, err := json.Marshal(struct {
		Key          int
		Chain        int64
		Version      int
		Slug, Model  string
		Sources      []source
		ModelRequest llm.Request
	}{keyVersion, v.ChainID, v.Version, slug, model, sources, req})
	if err != nil {
		return CacheKey{}, fmt.Errorf("encode the request: %w", err)
	}
	return sha256.Sum256(doc), nil
}

// claim is what an attempt has to do with the response cache.
type claim struct {
	e        *Executor
	question CacheQuestion
	holder   uuid.UUID // the request id of the call
	ttl      time.Duration
	seat     *seat         // while others may wait for this call; nil when it is made beside others
	leads    bool          // it holds the lease
	answer   *CachedAnswer // what was kept
}

// consult asks the cache for the answer to a call, if the prompt wants it to. It
// answers nil when the call has to be made. What stands in opening is written
// before it waits for somebody else's call.
func (s *step) consult(ctx context.Context, c *call, opening []events.Draft) (*CachedAnswer, []events.Draft, error) {
	e := s.run.e
	mode := s.run.ex.CacheMode
	if s.prompt.Cache == nil || e.cfg.Cache == nil || mode == CacheOff {
		return nil, opening, nil
	}
	key, err := cacheKey(s.run.version, s.prompt.Slug, c.target.ID, s.sources, c.request)
	if err != nil {
		s.run.logger.WarnContext(ctx, "response cache not used", "prompt_id", s.state.PromptID, "error", err)
		return nil, opening, nil
	}
	c.claim = &claim{e: e, holder: uuid.MustParse(c.id), ttl: s.prompt.Cache.TTL, question: CacheQuestion{
		Key: key, ChainID: s.run.ex.ChainID, PromptID: s.state.PromptID, Model: c.target.ID, Documents: make([]int64, 0, len(s.sources)),
	}}
	for _, d := range s.sources {
		c.claim.question.Documents = append(c.claim.question.Documents, d.ID)
	}
	if mode == CacheRefresh {
		return nil, opening, nil
	}
	answer, err := c.claim.ask(ctx, func() error {
		begun := opening
		opening = nil
		return s.open(begun)
	})
	if err != nil {
		return nil, nil, err
	}
	if answer == nil {
		s.state.Cache = events.CacheToldMiss
		opening = append(opening, s.draft(events.CacheMiss{
			PromptID: s.state.PromptID, RequestID: c.id, Provider: c.target.Vendor, Model: c.target.Model, Attempt: s.state.Attempt,
		}))
	}
	return answer, opening, nil
}

// recall closes the prompt with an answer from the cache.
func (s *step) recall(c *call, a *CachedAnswer, opening []events.Draft) error {
	s.state.Cache = events.CacheToldHit
	s.state.Saved = &events.Reused{ExecutionID: a.ExecutionID, InputTokens: a.InputTokens, OutputTokens: a.OutputTokens, CostUSD: a.CostUSD}
	err := s.open(append(opening, s.draft(events.CacheHit{
		PromptID: s.state.PromptID, RequestID: c.id, Provider: c.target.Vendor, Model: c.target.Model, Attempt: s.state.Attempt,
		SourceExecutionID: a.ExecutionID, SourceRequestID: a.RequestID.String(), AgeMS: a.Age.Milliseconds(),
		SavedInputTokens: a.InputTokens, SavedOutputTokens: a.OutputTokens, SavedCostUSD: a.CostUSD,
	})))
	if err != nil {
		return err
	}
	s.state.Output, s.state.FinishReason, s.state.Cached = a.Text, a.FinishReason, true
	c.text.kind = events.TypePromptDelta
	c.text.add(a.Text, false)
	s.succeed(c.deltas())
	return nil
}

// remember keeps an answer that is complete and valid, once the prompt-complete
// that holds it is stored: a hit never names an execution that has not said it.
func (c *call) remember(stored *events.Pending, u llm.Usage, cost *string) {
	s := c.step
	text := s.state.Output
	if c.claim == nil || c.finish != llm.FinishStop || c.repaired || text == "" || len(text) > MaxCachedBytes {
		return
	}
	if stored.Wait(s.run.hold) != nil {
		return
	}
	a := CachedAnswer{
		Text: text, FinishReason: c.finish, InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, CostUSD: cost,
		ExecutionID: s.run.ex.ID, RequestID: c.claim.holder,
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.run.hold), cacheTimeout)
	defer cancel()
	if err := s.run.e.cfg.Cache.KeepAnswer(ctx, c.claim.question, a, c.claim.ttl); err != nil {
		s.run.logger.WarnContext(ctx, "answer not remembered", "prompt_id", s.state.PromptID, "error", err)
		return
	}
	c.claim.answer = &a
}

// ask answers the answer to the claim's question, or nil when the call is to be
// made. While somebody else is getting it, here or in another process, it waits;
// waiting is called before. When that fails, one of those who wait makes the
// call and the others wait on, but for no more than maxHolders failures. When this
// server is to hand its executions over, whoever goes on with them asks again. A
// cache that does not answer has no answer.
func (c *claim) ask(ctx context.Context, waiting func() error) (*CachedAnswer, error) {
	c.seat = c.e.flights.join(c.question.Key)
	answer, err := c.queue(ctx, waiting)
	if c.leads {
		return nil, nil // the seat is left when the call has ended
	}
	c.seat.leave(answer, false)
	c.seat = nil
	if answer != nil {
		c.e.flights.count(c.question.Key)
	}
	return answer, err
}

// queue waits for an answer or for the turn to look for it.
func (c *claim) queue(ctx context.Context, waiting func() error) (*CachedAnswer, error) {
	for {
		answer, changed, alone := c.seat.next()
		switch {
		case answer != nil || alone:
			return answer, nil
		case changed == nil:
			return c.look(ctx, waiting)
		}
		if err := waiting(); err != nil {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.e.leaving:
			return nil, errHandedOver
		}
	}
}

// look asks the cache until it has an answer, or has made the claim the holder,
// or the wait for others is over.
func (c *claim) look(ctx context.Context, waiting func() error) (*CachedAnswer, error) {
	var other uuid.UUID
	for {
		state, err := c.askOnce(ctx)
		switch {
		case err != nil:
			c.e.logger.WarnContext(ctx, "response cache not asked", "prompt_id", c.question.PromptID, "error", err)
			return nil, nil
		case state.Answer != nil:
			return state.Answer, nil
		case state.Holder == c.holder:
			c.leads = true
			c.seat.lead(c.holder)
			return nil, nil
		case other != uuid.Nil && state.Holder != other && c.seat.gaveUp():
			return nil, nil
		}
		other = state.Holder
		if err := waiting(); err != nil {
			return nil, err
		}
		timer := time.NewTimer(cachePoll/2 + rand.N(cachePoll/2)) //nolint:gosec // spreads load, guards nothing
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-c.e.leaving:
			timer.Stop()
			return nil, errHandedOver
		}
	}
}

// askOnce asks to the end, whatever becomes of the prompt: it may have made the
// claim the holder.
func (c *claim) askOnce(ctx context.Context) (CacheState, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
	defer cancel()
	return c.e.cfg.Cache.AskCache(ctx, c.question, c.holder, c.e.cfg.Lease)
}

// settle hands the answer to those who wait for it, or lets one of them get it.
func (c *claim) settle() {
	if c == nil || c.seat == nil {
		return
	}
	if c.answer == nil {
		ctx, cancel := context.WithTimeout(context.Background(), cacheTimeout)
		defer cancel()
		if err := c.e.cfg.Cache.ReleaseCache(ctx, c.question.Key, c.holder); err != nil {
			c.e.logger.WarnContext(ctx, "response cache not released, the lease will run out", "prompt_id", c.question.PromptID, "error", err)
		}
	}
	c.seat.leave(c.answer, c.answer == nil)
}

// cacheLoop prolongs the leases of the calls that this process makes for others
// too, and counts uses.
func (e *Executor) cacheLoop() {
	e.every(e.cfg.Renew, nil, func(ctx context.Context) error {
		return errors.Join(e.renewCache(ctx), e.countCacheHits(ctx))
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.claiming), cacheTimeout)
	defer cancel()
	if err := e.countCacheHits(ctx); err != nil {
		e.logger.WarnContext(ctx, "uses of cached answers not counted", "error", err)
	}
}

func (e *Executor) renewCache(ctx context.Context) error {
	held := e.flights.held()
	if len(held) == 0 {
		return nil
	}
	return e.cfg.Cache.RenewCache(ctx, held, e.cfg.Lease)
}

// countCacheHits tells how often answers were used. A count that is lost is lost.
func (e *Executor) countCacheHits(ctx context.Context) error {
	hits := e.flights.counted()
	if len(hits) == 0 {
		return nil
	}
	return e.cfg.Cache.CountCacheHits(ctx, hits)
}
