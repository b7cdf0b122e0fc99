package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// triggerAnswer says that an execution is on its way.
type triggerAnswer struct {
	ExecutionID  int64           `json:"executionId"`
	Status       executor.Status `json:"status"`
	ChainID      int64           `json:"chainId"`
	ChainName    string          `json:"chainName"`
	ChainVersion int             `json:"chainVersion"`
	EventsURL    string          `json:"eventsUrl"`
	CreatedAt    time.Time       `json:"createdAt"`
}

// trigger is POST /api/v1/executions.
func (s *Server) trigger(c echo.Context) error {
	body, _, err := s.body(c, mediaJSON)
	if err != nil {
		return err
	}
	return s.start(c, "", body, func(ctx context.Context) (executor.Trigger, error) { return s.readTrigger(ctx, body) })
}

// start makes an execution of the trigger that prepare answers. The answer is
// sent at once, or, as the request asks, when the execution has ended, or is the
// stream of its events. scope tells requests of equal bodies apart.
func (s *Server) start(c echo.Context, scope string, body []byte, prepare func(context.Context) (executor.Trigger, error)) error {
	ctx := c.Request().Context()
	wantsStream := preferred(c.Request().Header, mediaTypeJSON, mediaTypeStream) == mediaTypeStream
	key, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	hashedKey, err := hashed(key, scope, body)
	if err != nil {
		return err
	}
	ex, replayed, err := s.replay(ctx, hashedKey)
	if err != nil {
		return err
	}
	var t executor.Trigger
	if !replayed {
		if t, err = prepare(ctx); err != nil {
			return err
		}
		t.Key = hashedKey
	}
	var seat *place
	if wantsStream && s.stopping() {
		return executor.ErrStopping // before there is an execution that the answer would hide
	}
	if wantsStream {
		// An answer without events would hide that the execution was made, so
		// the place is taken first.
		if seat = s.streams.take(s.cfg.MaxStreams); seat == nil {
			return &problem{kind: kindOverloaded, detail: "Start the execution without a stream, or try again later.", retryAfter: busyRetry}
		}
	}
	if !replayed {
		ex, replayed, err = s.cfg.Runner.Trigger(ctx, t)
	}
	switch {
	case err != nil:
		if seat != nil {
			seat.leave()
		}
		s.metrics.executions.WithLabelValues("refused").Inc()
		return err
	case replayed:
		s.metrics.executions.WithLabelValues("replayed").Inc()
		c.Response().Header().Set("Idempotency-Replayed", "true")
	default:
		s.metrics.executions.WithLabelValues("created").Inc()
	}
	h := c.Response().Header()
	h.Set(echo.HeaderLocation, executionURL(ex.ID))
	h.Set("Execution-Id", strconv.FormatInt(ex.ID, 10))
	if wantsStream {
		return s.streamNew(c, seat, ex.ID)
	}
	if wait := preferredWait(c.Request().Header, s.cfg.MaxWait); wait > 0 {
		h.Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
		ended, err := s.await(c, ex.ID, wait)
		if err != nil {
			return err
		}
		if ended {
			return s.sendExecution(c, http.StatusOK, ex.ID)
		}
	}
	return c.JSON(http.StatusAccepted, triggerAnswer{
		ExecutionID: ex.ID, Status: ex.Status, ChainID: ex.ChainID, ChainName: ex.ChainName, ChainVersion: ex.ChainVersion,
		EventsURL: eventsURL(ex.ID), CreatedAt: ex.CreatedAt.UTC(),
	})
}

// replay answers what an idempotency key was used for. It comes before anything
// is checked: the chain may have changed since.
func (s *Server) replay(ctx context.Context, key executor.IdempotencyKey) (ex executor.Execution, found bool, err error) {
	if key.Key == "" {
		return ex, false, nil
	}
	return s.cfg.Runner.Replay(ctx, key)
}

// streamNew answers with the events of an execution from the first on.
func (s *Server) streamNew(c echo.Context, p *place, id int64) error {
	sub, err := s.cfg.Broker.Subscribe(c.Request().Context(), id, 0)
	if err != nil {
		p.leave()
		return err
	}
	return s.serveStream(c, p, sub, view{})
}

// await blocks until the execution has ended, or until the wait is over, the
// server drains or the log cannot be read: then the client has to look again.
func (s *Server) await(c echo.Context, id int64, wait time.Duration) (ended bool, err error) {
	rc := http.NewResponseController(c.Response().Writer)
	if err := unhurried(rc); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), wait)
	defer cancel()
	ended = s.ended(ctx, id)
	if err := rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false, fmt.Errorf("set write deadline: %w", err)
	}
	return ended, nil
}

func (s *Server) ended(ctx context.Context, id int64) bool {
	sub, err := s.cfg.Broker.Subscribe(ctx, id, 0)
	if err != nil {
		return false
	}
	defer sub.Close()
	for {
		if _, err := sub.Next(ctx); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// readTrigger reads the body of a trigger and reports everything that is wrong
// with it: unknown fields are as wrong as missing ones.
func (s *Server) readTrigger(ctx context.Context, body []byte) (executor.Trigger, error) {
	r, err := requestObject(body)
	if err != nil {
		return executor.Trigger{}, err
	}
	id, name := r.chain()
	version := r.version()
	inputs := r.object("inputs")
	metadata := r.metadata()
	l := r.limits()
	priority := r.priority()
	cache := r.cache()
	r.surplus("chain", "version", "inputs", "metadata", "limits", "priority", "cache")
	if len(r.problems) > 0 {
		return executor.Trigger{}, inputProblem(r.problems)
	}
	v, err := s.findChain(ctx, id, name, version)
	if err != nil {
		return executor.Trigger{}, err
	}
	checked, err := v.Chain.CheckInputs(inputs)
	if list, ok := isProblems(err); ok {
		return executor.Trigger{}, inputProblem(list)
	}
	if err != nil {
		return executor.Trigger{}, err
	}
	if err := s.runnable(ctx, limited(v.Chain, l)); err != nil {
		return executor.Trigger{}, err
	}
	t := executor.Trigger{Version: v, Inputs: checked, Metadata: metadata, Limits: l, Priority: priority}
	if cache != nil {
		t.Cache = *cache
	}
	return t, nil
}

// limited answers a chain as it runs with narrower limits.
func limited(c *chain.Chain, l chain.Limits) *chain.Chain {
	narrow := *c
	narrow.Limits = executor.Narrow(c.Limits, l)
	return &narrow
}

// runnable tells whether a chain can run here. The pointers of its problems lead
// into the chain, not into the request.
func (s *Server) runnable(ctx context.Context, c *chain.Chain) error {
	err := s.cfg.Runner.Check(ctx, c)
	if list, ok := isProblems(err); ok {
		return invalid("The chain cannot run on this server: " + list.Error())
	}
	return err
}

// fieldReader reads the fields of a request that is an object, and gathers what is wrong.
type fieldReader struct {
	fields   map[string]json.RawMessage
	problems chain.Problems
}

// field answers a field; false when it is missing or null.
func (r *fieldReader) field(name string) (json.RawMessage, bool) {
	raw, ok := r.fields[name]
	return raw, ok && string(raw) != "null"
}

func (r *fieldReader) add(pointer, code, detail string) {
	r.problems = append(r.problems, chain.Problem{Pointer: pointer, Code: code, Detail: detail})
}

// chain reads which chain is meant: a number is an id, a string an id or a name.
func (r *fieldReader) chain() (id int64, name string) {
	raw, ok := r.fields["chain"]
	if !ok {
		r.add("/chain", chain.CodeRequired, "is missing: the id or the name of a chain")
		return 0, ""
	}
	if err := json.Unmarshal(raw, &name); err != nil || raw[0] != '"' {
		name = string(raw)
		if id, ok = pathID(name); !ok {
			r.add("/chain", chain.CodeWrongType, "must be the id or the name of a chain")
		}
		return id, ""
	}
	if id, ok = pathID(name); ok {
		return id, ""
	}
	if !slug.MatchString(name) {
		r.add("/chain", chain.CodeInvalid, "must be the id or the name of a chain")
	}
	return 0, name
}

// maxMetadata bounds what lists of executions repeat, in bytes.
const maxMetadata = 16 << 10

// metadata reads an object of bounded size; nil when it is missing.
func (r *fieldReader) metadata() json.RawMessage {
	raw, ok := r.field("metadata")
	if !ok {
		return nil
	}
	r.members("/metadata", raw)
	if len(raw) > maxMetadata {
		r.add("/metadata", chain.CodeTooLarge, fmt.Sprintf("has %d bytes, more than %d", len(raw), maxMetadata))
	}
	return raw
}

func (r *fieldReader) version() int {
	raw, ok := r.field("version")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil || n < 1 {
		r.add("/version", chain.CodeWrongType, "must be a version of the chain: 1, 2, 3 …")
	}
	return int(n)
}

func (r *fieldReader) priority() int {
	raw, ok := r.field("priority")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < executor.MinPriority || n > executor.MaxPriority {
		r.add("/priority", chain.CodeOutOfRange, fmt.Sprintf("must be a whole number from %d to %d", executor.MinPriority, executor.MaxPriority))
		return 0
	}
	return n
}

// cacheModes are the words of the API for how the response cache is used.
var cacheModes = map[string]executor.CacheMode{"on": executor.CacheOn, "refresh": executor.CacheRefresh, "off": executor.CacheOff}

// cache reads how the response cache is used; nil when the request leaves it open.
func (r *fieldReader) cache() *executor.CacheMode {
	raw, ok := r.field("cache")
	if !ok {
		return nil
	}
	var word string
	if json.Unmarshal(raw, &word) == nil {
		if mode, ok := cacheModes[word]; ok {
			return &mode
		}
	}
	r.add("/cache", chain.CodeInvalid, "must be on, refresh or off")
	return nil
}

// object reads a field that is an object or missing.
func (r *fieldReader) object(name string) map[string]json.RawMessage {
	raw, ok := r.field(name)
	if !ok {
		return nil
	}
	return r.members("/"+name, raw)
}

func (r *fieldReader) members(pointer string, raw json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		r.add(pointer, chain.CodeWrongType, "must be an object")
	}
	return m
}

// surplus reports fields that the request does not have.
func (r *fieldReader) surplus(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		if !slices.Contains(names, name) {
			r.add("/"+pointerEscaper.Replace(name), chain.CodeUnknownField, "there is no such field; there are "+strings.Join(names, ", "))
		}
	}
}

// limits reads the limits that narrow those of the chain.
func (r *fieldReader) limits() (l chain.Limits) {
	m := r.object("limits")
	for _, name := range slices.Sorted(maps.Keys(m)) {
		pointer := "/limits/" + pointerEscaper.Replace(name)
		switch raw := m[name]; name {
		case "timeout":
			l.Timeout = r.duration(pointer, raw)
		case "maxCostUsd":
			l.MaxCostUSD = r.money(pointer, raw)
		case "maxTokens":
			l.MaxTokens = r.tokens(pointer, raw)
		default:
			r.add(pointer, chain.CodeUnknownField, "there is no such field; there are timeout, maxCostUsd, maxTokens")
		}
	}
	return l
}

func (r *fieldReader) duration(pointer string, raw json.RawMessage) time.Duration {
	var text string
	err := json.Unmarshal(raw, &text)
	d, perr := time.ParseDuration(text)
	if err != nil || perr != nil || d < time.Millisecond || d > chain.MaxTimeout {
		r.add(pointer, chain.CodeInvalid, fmt.Sprintf("must be a duration such as 90s or 15m, at most %dh", int(chain.MaxTimeout.Hours())))
		return 0
	}
	return d
}

// tokens reads a number of tokens.
func (r *fieldReader) tokens(pointer string, raw json.RawMessage) int {
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil || n < 1 {
		r.add(pointer, chain.CodeOutOfRange, fmt.Sprintf("must be a whole number from 1 to %d", math.MaxInt32))
	}
	return int(n)
}

// money reads an amount of US dollars and keeps it exact.
func (r *fieldReader) money(pointer string, raw json.RawMessage) string {
	const most, places = 1_000_000, 9
	amount, ok := new(big.Rat).SetString(string(raw))
	if !ok || raw[0] == '"' || amount.Sign() <= 0 || amount.Cmp(big.NewRat(most, 1)) > 0 {
		r.add(pointer, chain.CodeOutOfRange, fmt.Sprintf("must be a number above 0 and up to %d", most))
		return ""
	}
	text := amount.FloatString(places)
	if back, _ := new(big.Rat).SetString(text); back.Cmp(amount) != 0 {
		r.add(pointer, chain.CodeInvalid, fmt.Sprintf("may have at most %d decimal places", places))
		return ""
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// maxKey is the longest Idempotency-Key, in bytes.
const maxKey = 255

// idempotencyKey reads the header that makes a repeated trigger harmless.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	visible := func(r rune) bool { return r > 0x20 && r < 0x7f }
	if len(values) > 1 || key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return !visible(r) }) {
		return "", badParameter("Idempotency-Key", fmt.Sprintf("One key of 1 to %d visible ASCII characters is expected.", maxKey))
	}
	return key, nil
}

// hashed joins a key with the meaning of the body: the order of members and
// white space make no other request.
func hashed(key, scope string, body []byte) (executor.IdempotencyKey, error) {
	if key == "" {
		return executor.IdempotencyKey{}, nil
	}
	canonical, err := events.AppendJSONB([]byte(scope), body)
	if err != nil {
		return executor.IdempotencyKey{}, fmt.Errorf("normalise the body: %w", err)
	}
	return executor.IdempotencyKey{Key: key, Hash: sha256.Sum256(canonical)}, nil
}

// preferredWait reads "wait=N" of Prefer (RFC 7240), in seconds and capped. A
// preference that cannot be read is no preference.
func preferredWait(h http.Header, most time.Duration) time.Duration {
	for _, line := range h.Values("Prefer") {
		for p := range strings.SplitSeq(line, ",") {
			p, _, _ = strings.Cut(p, ";")
			name, value, _ := strings.Cut(p, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			n, err := events.ParseCursor(strings.Trim(strings.TrimSpace(value), `"`))
			if err != nil {
				return 0
			}
			return time.Duration(min(n, int64(most/time.Second))) * time.Second
		}
	}
	return 0
}
