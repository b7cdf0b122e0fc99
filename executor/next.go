package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// turn is which model an attempt calls, and which of its tries it is.
type turn struct {
	model int // index in step.models
	try   int // from 1
}

// next is what follows a failed attempt.
type next struct {
	turn
	delay  time.Duration
	long   bool   // too long for a worker
	reason string // of the prompt-retry
}

// models answers the models of the prompt in the order in which they are tried.
func (s *step) models() []string { return append([]string{s.prompt.Model}, s.prompt.Fallback...) }

// next decides what follows an attempt that ended in err; nil is nothing. The
// same model is tried again while its attempts, the retry policy and the budget
// for retries allow it, then the fallback models have their turns. One that
// can be asked at once goes before a long wait, and before a model whose calls
// are stopped. The error is answered as users are to see it.
func (s *step) next(ctx context.Context, t turn, err error) (*next, error) {
	var call *llm.Error
	if ctx.Err() != nil || !errors.As(err, &call) || call.Code == llm.CodeCancelled {
		return nil, err // only models are tried again
	}
	models := s.models()
	last := t.model == len(models)-1
	message := failureOf(ctx, err).message
	policy := s.run.e.cfg.Retry
	policy.Attempts = s.prompt.Retry.Attempts
	switch delay, again := policy.Next(t.try, err); {
	case call.Code == codeOutputInvalid:
		if s.correct(err) {
			return &next{turn: t, reason: correctionReason(call)}, err
		}
	case call.Code == llm.CodeCircuitOpen && !last:
	case again && s.mayRetry(models[t.model], call):
		return &next{turn: turn{t.model, t.try + 1}, delay: delay, reason: message}, err
	case again:
		suspended := *call
		suspended.Message += " Retries of this model are suspended, because too many of its calls fail."
		call, err, message = &suspended, &suspended, suspended.Message
	case delay > 0 && last:
		return &next{turn: turn{t.model, t.try + 1}, delay: delay, long: true, reason: message}, err
	}
	if last {
		return nil, err
	}
	s.leaveModel()
	return &next{turn: turn{t.model + 1, 1}, reason: fmt.Sprintf("%s Falling back to %s.", message, models[t.model+1])}, err
}

// mayRetry takes a retry from the model's budget, unless the last one has not
// become a call: the breaker was open. What the provider has asked for by naming
// a time costs none, nor does what is no fault of it.
func (s *step) mayRetry(model string, failed *llm.Error) bool {
	if s.paid || failed.Code == llm.CodeUnexpectedToolCall || failed.Code == llm.CodeRateLimited && failed.RetryAfter > 0 {
		return true
	}
	s.paid = s.run.e.health.of(model).budget.Take()
	return s.paid
}

// enter asks the model's breaker for leave to call it, and books the call with
// the budget for retries.
func (s *step) enter(model string) (done func(error), refused error) {
	h := s.run.e.health.of(model)
	done, open := h.breaker.Allow()
	if open != nil {
		return nil, open
	}
	if !s.called {
		h.budget.Earn()
	}
	s.called, s.paid = true, false
	return done, nil
}

// leaveModel forgets what belongs to the tries of one model.
func (s *step) leaveModel() { s.called, s.paid, s.correction = false, true, nil }

// announcedTurn answers the attempt that was announced before the execution
// changed hands; the first when nothing says which.
func (s *step) announcedTurn() turn {
	l := s.run.unfinished[s.index]
	if l == nil || !l.Announced || l.NextModel == "" {
		return turn{0, 1}
	}
	s.called = l.NextTry > 1
	return turn{max(slices.Index(s.models(), l.NextModel), 0), max(l.NextTry, 1)}
}
