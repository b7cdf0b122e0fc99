package knowledge

import (
	"context"
	"time"

	"github.com/shopspring/decimal"
)

// Owner is what a call of an embedding model is made for. The zero value is a client
// that asks for vectors, or searches.
type Owner struct {
	ExecutionID int64 // that retrieves passages
	PromptID    int64 // of it
	DocumentID  int64 // that is processed
}

type ownerKey struct{}

// OnBehalf lets the ledger know what the calls of embedding models are made for.
func OnBehalf(ctx context.Context, o Owner) context.Context {
	return context.WithValue(ctx, ownerKey{}, o)
}

func ownerOf(ctx context.Context) Owner {
	o, _ := ctx.Value(ownerKey{}).(Owner)
	return o
}

// What became of a booked call.
const (
	BookedSucceeded = "succeeded"
	BookedFailed    = "failed"
	BookedCancelled = "cancelled"
)

// Booking is a call of an embedding model as the ledger keeps it.
type Booking struct {
	Owner
	Purpose      string // document, query or request
	Provider     string
	Model        string // as the provider knows it
	Status       string // BookedSucceeded, BookedFailed or BookedCancelled
	Texts        int
	InputTokens  int64
	OutputTokens int64
	Estimated    bool             // the tokens are
	CostUSD      *decimal.Decimal // where the ledger has no price of the model; nil = unknown
	ErrorCode    string
	HTTPStatus   int // of a refusal; 0 = none
	StartedAt    time.Time
	Duration     time.Duration
}
