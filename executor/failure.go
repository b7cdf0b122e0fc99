package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/llm"
)

// Codes of failures that the executor itself finds; those of model calls are
// llm's. They are part of the API and never change.
const (
	codeCancelled       = "cancelled"         // somebody asked for it
	codeTimeout         = "timeout"           // the execution's time was up
	codePromptTimeout   = "prompt_timeout"    // the prompt's time was up
	codeUnresolved      = "unresolved"        // a variable has no value at run time
	codeUnavailable     = "model_unavailable" // the model's provider is not configured here
	codeOutputInvalid   = "output_invalid"    // the answer does not match output.schema
	codeOutputTruncated = "output_truncated"  // the answer was cut off by its token limit before it matched output.schema
	codeLimit           = "limit_exceeded"
	codeCrashLoop       = "crash_loop"
	codeRetrieval       = "retrieval_failed"
	codeReuseGone       = "reuse_gone"      // the execution whose results were to be taken over was erased meanwhile
	codeBudget          = "budget_exceeded" // what is left of a limit or a budget does not pay for the next call
	codeUnpriced        = "unknown_price"   // a limit or a budget of money, and a model without a price
	codeInternal        = "internal"
)

// failure ends a prompt or an execution. Its message and details are safe for users.
type failure struct {
	code        string
	message     string
	details     string
	prompt      int64 // id of the prompt that failed; 0 when it is the execution itself
	recoverable bool  // a retry of the execution may succeed
	err         error // the cause, for the operator's log only
}

func (f *failure) Error() string { return f.code + ": " + f.message }
func (f *failure) Unwrap() error { return f.err }

// eventLimit is the cause that ends an execution with too many events.
type eventLimit int64

func (n eventLimit) Error() string { return fmt.Sprintf("more than %d events", int64(n)) }

var errPromptTimeout = errors.New("the prompt's time is up")

// failureOf translates what ended an attempt. The cause of the context comes
// first: a call that was cut off fails with whatever the cut looked like.
func failureOf(ctx context.Context, err error) *failure {
	var known *failure
	var call *llm.Error
	var unresolved *chain.UnresolvedError
	var limit eventLimit
	switch cause := context.Cause(ctx); {
	case cause == nil:
	case errors.Is(cause, errCancelled):
		return &failure{code: codeCancelled, message: "The execution was cancelled.", recoverable: true, err: err}
	case errors.Is(cause, errTimeout):
		return &failure{code: codeTimeout, message: "The execution did not finish in its time.", recoverable: true, err: err}
	case errors.Is(cause, errPromptTimeout):
		return &failure{code: codePromptTimeout, message: "The prompt did not finish in its time.", recoverable: true, err: err}
	case errors.As(cause, &limit):
		return &failure{code: codeLimit, message: fmt.Sprintf("The execution has reached the limit of %d events.", limit), err: err}
	}
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &call):
		return &failure{code: string(call.Code), message: call.Message, details: call.Detail, recoverable: call.Retryable, err: err}
	case errors.Is(err, chain.ErrRenderedTooLarge):
		return &failure{code: codeLimit, message: fmt.Sprintf("With its variables the prompt is larger than %d MiB.", chain.MaxRenderedBytes>>20), err: err}
	case errors.As(err, &unresolved):
		return &failure{code: codeUnresolved, message: fmt.Sprintf("The variable %s has no value: %s.", unresolved.Name, unresolved.Reason), err: err}
	}
	return &failure{code: codeInternal, message: "An internal error ended the prompt.", recoverable: true, err: err}
}
