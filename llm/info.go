package llm

import (
	"time"

	"github.com/shopspring/decimal"
)

// Info is what is known of a model beyond its name. The zero value is a model
// nothing is known of: it can be called, but not priced, and its prompt is not
// measured beforehand.
type Info struct {
	// ContextWindow is how many tokens prompt and answer may have together, and
	// MaxOutput how many the answer may have; 0 is unknown.
	ContextWindow, MaxOutput int64
	// Vision, Tools, Schema and Reasoning tell what the model can: see images, ask
	// for tools, have its answer held to a JSON Schema by the provider, and show
	// or hide its thinking.
	Vision, Tools, Schema, Reasoning bool
	// Prices are the prices over time, the oldest first and without overlap.
	Prices []Price
	// OwnPrices says that the operator gave the prices.
	OwnPrices bool
	// Count counts the tokens of a text as the model's tokenizer does; nil when
	// it is not at hand.
	Count func(text string) int64
}

// Blind tells whether a model is known not to see images: what it can is known,
// and seeing is not part of it.
func (i Info) Blind() bool { return !i.Vision && (i.Tools || i.Schema || i.Reasoning) }

// Price is what a model costs from one moment to another, in US dollars for a
// million tokens.
type Price struct {
	From, Until time.Time // the moment of the call; From included, zero = no bound
	// Input is for the prompt as far as it was neither read from nor put into a
	// cache.
	Input decimal.Decimal
	// CachedInput and CacheWrite are for those parts; nil = as Input.
	CachedInput, CacheWrite *decimal.Decimal
	// Output is for the whole answer, reasoning included.
	Output decimal.Decimal
}

// Free is the price of what costs nothing.
func Free() []Price { return []Price{{}} }

// PriceAt answers the price of a call that is made now.
func (i Info) PriceAt(now time.Time) (Price, bool) {
	for _, p := range i.Prices {
		if !now.Before(p.From) && (p.Until.IsZero() || now.Before(p.Until)) {
			return p, true
		}
	}
	return Price{}, false
}

// perMillion is what prices are for.
const perMillion = 6

// Cost answers what a usage costs in US dollars, exactly. No token is counted
// twice: those of the cache are part of the input.
func (p Price) Cost(u Usage) decimal.Decimal {
	plain := u.InputTokens - u.CachedTokens - u.CacheWriteTokens
	sum := p.Input.Mul(decimal.NewFromInt(plain)).
		Add(orInput(p.CachedInput, p.Input).Mul(decimal.NewFromInt(u.CachedTokens))).
		Add(orInput(p.CacheWrite, p.Input).Mul(decimal.NewFromInt(u.CacheWriteTokens))).
		Add(p.Output.Mul(decimal.NewFromInt(u.OutputTokens)))
	return sum.Shift(-perMillion)
}

func orInput(special *decimal.Decimal, input decimal.Decimal) decimal.Decimal {
	if special == nil {
		return input
	}
	return *special
}
