package executor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// Bounds of what is reserved for a call.
const (
	// defaultAnswer is how many tokens an answer may have under a limit when
	// neither the prompt nor the registry says it.
	defaultAnswer = 4096
	// leastAnswer is the shortest answer that is worth a call. When what is left
	// pays for less, the call is not made, unless its prompt asks for no more.
	leastAnswer = 64
	// estimateMargin is what an estimated prompt is reserved with: texts that
	// tokenizers like less than the estimate does have up to about twice its tokens.
	estimateMargin = 2
	// settleTimeout bounds the booking of a call to shared budgets; a sweep follows.
	settleTimeout = 10 * time.Second
)

// tenant is whose budgets count; there is one.
const tenant = "default"

// Reservation is the wish to make a call that budgets have to pay for.
type Reservation struct {
	Request     string // id of the call; the same again replaces what it held
	Execution   int64
	Epoch       int64 // of the lease
	Tenant      string
	Scopes      []string // of the budgets that count it
	InputTokens int64
	Want        int64            // tokens that the answer may have at most
	Minimum     int64            // and at least, or the call is not made
	InputUSD    *decimal.Decimal // the worst that the prompt can cost; nil without a price
	OutputUSD   *decimal.Decimal // of one token of the answer
}

// Grant is the answer to a Reservation.
type Grant struct {
	Output  int64 // tokens that the answer may have; -1 = refused
	Held    bool  // something was reserved
	Refused Budget
	// Unpriced says that the refusing budget is one of money and the model has no
	// price.
	Unpriced bool
}

// need is what a call may use at the worst.
type need struct {
	model         string
	inputTokens   int64
	want, minimum int64 // tokens of the answer
	priced        bool
	inputUSD      decimal.Decimal // the whole prompt, at the dearest of its prices
	outputUSD     decimal.Decimal // one token of the answer
}

func (n need) cost(output int64) decimal.Decimal {
	return n.inputUSD.Add(n.outputUSD.Mul(decimal.NewFromInt(output)))
}

// hold is what a call has reserved.
type hold struct {
	limited bool
	shared  bool // in budgets too
	priced  bool
	usd     decimal.Decimal
	tokens  int64
}

// note writes into a ledger row what its call has reserved.
func (h hold) note(row *events.CallState) {
	if !h.limited {
		return
	}
	row.ReservedTokens = &h.tokens
	if h.priced {
		usd := h.usd.String()
		row.ReservedUSD = &usd
	}
}

// account is what an execution may use. The execution is one process's at a time,
// so it is kept here; a process that takes over begins with what the ledger says.
type account struct {
	mu                          sync.Mutex
	limitUSD                    *decimal.Decimal
	limitTokens                 int64
	spentUSD, reservedUSD       decimal.Decimal
	spentTokens, reservedTokens int64
}

func (a *account) limit(l chain.Limits) error {
	a.limitTokens = int64(l.MaxTokens)
	if l.MaxCostUSD != "" {
		usd, err := decimal.NewFromString(l.MaxCostUSD)
		if err != nil {
			return fmt.Errorf("read the limit of the cost: %w", err)
		}
		a.limitUSD = &usd
	}
	return nil
}

func (a *account) limited() bool { return a.limitUSD != nil || a.limitTokens > 0 }

// reserve holds the worst case of a call, with an answer as long as the limits
// pay for.
func (a *account) reserve(n need) (hold, int64, *failure) {
	a.mu.Lock()
	defer a.mu.Unlock()
	output := n.want
	if a.limitUSD != nil {
		if !n.priced {
			return hold{}, 0, &failure{code: codeUnpriced, message: "The limit maxCostUsd cannot be kept: the price of " + n.model + " is not known."}
		}
		left := a.limitUSD.Sub(a.spentUSD).Sub(a.reservedUSD)
		if output = affordable(left, n, output); output < n.minimum {
			return hold{}, 0, &failure{code: codeBudget, recoverable: true, message: fmt.Sprintf(
				"The limit maxCostUsd of %s USD has no room for a call of %s that can cost %s USD: %s USD are spent and %s USD reserved.",
				a.limitUSD, n.model, n.cost(n.minimum), a.spentUSD, a.reservedUSD)}
		}
	}
	if a.limitTokens > 0 {
		if output = min(output, a.limitTokens-a.spentTokens-a.reservedTokens-n.inputTokens); output < n.minimum {
			return hold{}, 0, &failure{code: codeBudget, recoverable: true, message: fmt.Sprintf(
				"The limit maxTokens of %d has no room for a call of %s that can use %d tokens: %d are spent and %d reserved.",
				a.limitTokens, n.model, n.inputTokens+n.minimum, a.spentTokens, a.reservedTokens)}
		}
	}
	h := n.hold(output)
	a.reservedUSD, a.reservedTokens = a.reservedUSD.Add(h.usd), a.reservedTokens+h.tokens
	return h, output, nil
}

// affordable answers how many tokens of an answer an amount pays for; -1 when it
// does not even pay for the prompt.
func affordable(left decimal.Decimal, n need, want int64) int64 {
	if left.GreaterThanOrEqual(n.cost(want)) {
		return want
	}
	if left = left.Sub(n.inputUSD); left.IsNegative() || n.outputUSD.IsZero() {
		return -1
	}
	tokens, _ := left.QuoRem(n.outputUSD, 0)
	return min(want, tokens.IntPart())
}

func (n need) hold(output int64) hold {
	h := hold{limited: true, priced: n.priced, tokens: n.inputTokens + output}
	if n.priced {
		h.usd = n.cost(output)
	}
	return h
}

// change puts another reservation in the place of one.
func (a *account) change(from, to hold) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reservedUSD = a.reservedUSD.Sub(from.usd).Add(to.usd)
	a.reservedTokens += to.tokens - from.tokens
}

// settle puts what a call used in the place of what it had reserved.
func (a *account) settle(h hold, u llm.Usage, cost *string) {
	a.change(h, hold{})
	a.spend(u.InputTokens+u.OutputTokens, cost)
}

// spend counts what was used.
func (a *account) spend(tokens int64, cost *string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spentTokens += tokens
	a.spentUSD = a.spentUSD.Add(amount(cost))
}

// take counts a call of an earlier claim. Nobody knows what a lost one really
// used, so all that it had reserved counts, if that is more.
func (a *account) take(row events.CallState) {
	tokens, usd := row.InputTokens+row.OutputTokens, amount(row.CostUSD)
	if row.Lost || row.Status == events.CallOpen {
		if row.ReservedTokens != nil {
			tokens = max(tokens, *row.ReservedTokens)
		}
		usd = decimal.Max(usd, amount(row.ReservedUSD))
	}
	text := usd.String()
	a.spend(tokens, &text)
}

// amount reads a stored amount; one that is unknown counts as nothing.
func amount(text *string) decimal.Decimal {
	if text == nil {
		return decimal.Decimal{}
	}
	d, err := decimal.NewFromString(*text)
	if err != nil {
		return decimal.Decimal{}
	}
	return d
}

// reserve holds what the call may use at the worst: in the execution's limits and
// in the budgets, or else it is not made. Where they do not pay for the whole
// answer, the answer is held shorter.
func (c *call) reserve(ctx context.Context) error {
	r := c.step.run
	none := r.e.money.noBudgets(2 * r.e.cfg.Poll)
	if none && !r.account.limited() {
		c.promptTokens, _ = c.target.Info.CountRequest(c.request)
		return nil
	}
	n := c.need()
	h, output, refused := r.account.reserve(n)
	if refused != nil {
		return refused
	}
	if !none {
		granted, err := c.share(ctx, n, output)
		if err != nil {
			r.account.change(h, hold{})
			return err
		}
		shorter := n.hold(granted.Output)
		r.account.change(h, shorter)
		h, output = shorter, granted.Output
		h.shared = granted.Held
	}
	c.held = h
	if h.shared || r.account.limited() {
		c.request.MaxTokens = int(output)
	}
	return nil
}

// share holds the call in the budgets of the database.
func (c *call) share(ctx context.Context, n need, output int64) (g Grant, err error) {
	r := c.step.run
	wish := Reservation{
		Request: c.id, Execution: r.ex.ID, Epoch: r.ex.Epoch, Tenant: tenant, Scopes: []string{ScopeAll, ScopeChain(r.ex.ChainName)},
		InputTokens: n.inputTokens, Want: output, Minimum: n.minimum,
	}
	if n.priced {
		wish.InputUSD, wish.OutputUSD = &n.inputUSD, &n.outputUSD
	}
	err = r.patiently(func() (err error) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g, err = r.e.store.Reserve(ctx, wish)
		return err
	})
	switch {
	case err != nil:
		return g, err
	case g.Output >= 0:
		return g, nil
	case g.Unpriced:
		return g, &failure{code: codeUnpriced, message: fmt.Sprintf("%s cannot be kept: the price of %s is not known.", g.Refused.name(), n.model)}
	}
	return g, &failure{code: codeBudget, recoverable: true, message: g.Refused.refusal(n)}
}

// need answers what the call may use at the worst.
func (c *call) need() need {
	info := c.target.Info
	tokens, exact := info.CountRequest(c.request)
	c.promptTokens = tokens
	if !exact {
		tokens *= estimateMargin
	}
	n := need{model: c.target.ID, inputTokens: tokens, want: defaultAnswer}
	switch {
	case c.request.MaxTokens > 0:
		n.want = int64(c.request.MaxTokens)
	case info.MaxOutput > 0:
		n.want = info.MaxOutput
	}
	if room := info.ContextWindow - c.promptTokens; c.request.MaxTokens == 0 && info.ContextWindow > 0 {
		n.want = min(n.want, max(room, leastAnswer)) // a provider refuses what is longer than its window together
	}
	n.minimum = min(leastAnswer, n.want)
	r := c.step.run
	price, priced := r.e.money.priceAt(c.target.ID, info, r.e.cfg.Now())
	if n.priced = priced; priced {
		dearest := price.Input
		for _, p := range []*decimal.Decimal{price.CachedInput, price.CacheWrite} {
			if p != nil {
				dearest = decimal.Max(dearest, *p)
			}
		}
		const perMillion = 6
		n.inputUSD = dearest.Mul(decimal.NewFromInt(tokens)).Shift(-perMillion)
		n.outputUSD = price.Output.Shift(-perMillion)
	}
	return n
}

// settle books the call to the budgets that it was reserved in, once what closes
// it is stored. Should this process stop before, another one does so.
func (c *call) settle(closed *events.Pending) {
	if !c.held.shared {
		return
	}
	r := c.step.run
	r.settling.Go(func() {
		if closed.Wait(context.WithoutCancel(r.hold)) != nil {
			return // whoever goes on closes the call
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.hold), settleTimeout)
		defer cancel()
		if err := r.e.store.Settle(ctx, c.id); err != nil {
			r.logger.WarnContext(ctx, "call not booked to its budgets, a sweep follows", "request_id", c.id, "error", err)
		}
	})
}

// ScopeAll is the scope of a budget that counts every execution.
const ScopeAll = "all"

const scopeChain = "chain:"

// ScopeChain is the scope of a budget that counts the executions of one chain.
func ScopeChain(name string) string { return scopeChain + name }

// Periods answers the periods of budgets. They begin in UTC, by the clock of the
// database; total never begins anew.
func Periods() []string { return []string{"hour", "day", "month", "total"} }

// Budget bounds what many executions use together.
type Budget struct {
	ID          int64
	Scope       string // ScopeAll or ScopeChain
	Period      string // one of Periods
	LimitUSD    *decimal.Decimal
	LimitTokens *int64    // input and output together
	Since       time.Time // when the period began; zero for total
	Spent       Amount
	Reserved    Amount // the worst that calls under way can use
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Amount is what was used, or can be.
type Amount struct {
	USD    decimal.Decimal
	Tokens int64
}

func (b Budget) name() string {
	whose := "of all executions"
	if chain, ok := strings.CutPrefix(b.Scope, scopeChain); ok {
		whose = "of the chain " + chain
	}
	var limits []string
	if b.LimitUSD != nil {
		limits = append(limits, b.LimitUSD.String()+" USD")
	}
	if b.LimitTokens != nil {
		limits = append(limits, fmt.Sprintf("%d tokens", *b.LimitTokens))
	}
	period := " per " + b.Period
	if b.Period == "total" {
		period = " in total"
	}
	return "The budget " + whose + " of " + strings.Join(limits, " and ") + period
}

func (b Budget) refusal(n need) string {
	cost := ""
	if n.priced {
		cost = n.cost(n.minimum).String() + " USD and "
	}
	return fmt.Sprintf("%s has no room for a call of %s that can use %s%d tokens: %s USD and %d tokens are spent, %s USD and %d tokens reserved.",
		b.name(), n.model, cost, n.inputTokens+n.minimum, b.Spent.USD, b.Spent.Tokens, b.Reserved.USD, b.Reserved.Tokens)
}

// Narrow answers limits that are no wider than either of two; what one leaves
// open is the other's.
func Narrow(a, b chain.Limits) chain.Limits {
	if a.Timeout == 0 || b.Timeout > 0 && b.Timeout < a.Timeout {
		a.Timeout = b.Timeout
	}
	if a.MaxTokens == 0 || b.MaxTokens > 0 && b.MaxTokens < a.MaxTokens {
		a.MaxTokens = b.MaxTokens
	}
	if a.MaxCostUSD == "" || b.MaxCostUSD != "" && amount(&b.MaxCostUSD).LessThan(amount(&a.MaxCostUSD)) {
		a.MaxCostUSD = b.MaxCostUSD
	}
	return a
}
