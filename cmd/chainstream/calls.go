package main

import (
	"errors"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// callFlags bound the calls of models.
type callFlags struct {
	FirstByteTimeout time.Duration `help:"How long a model may take until it begins to answer." default:"2m" environ:"CHAINSTREAM_FIRST_BYTE_TIMEOUT"`
	IdleTimeout      time.Duration `help:"How long a model may pause in its answer." default:"1m" environ:"CHAINSTREAM_IDLE_TIMEOUT"`
	CallTimeout      time.Duration `help:"How long one call of a model may take as a whole." default:"10m" environ:"CHAINSTREAM_CALL_TIMEOUT"`
	MaxAnswer        int           `help:"Largest answer of a model, in bytes, with its reasoning." default:"4194304" environ:"CHAINSTREAM_MAX_ANSWER"`
	MaxHeldWait      time.Duration `help:"Longest wait before another attempt that keeps a worker; when a provider asks for more, the execution is put down until then." default:"1m" environ:"CHAINSTREAM_MAX_HELD_WAIT"`
}

func (f callFlags) validate() error {
	if f.FirstByteTimeout <= 0 || f.IdleTimeout <= 0 || f.CallTimeout <= 0 || f.MaxHeldWait <= 0 || f.MaxAnswer < 1 {
		return errors.New("--first-byte-timeout, --idle-timeout, --call-timeout, --max-held-wait and --max-answer must be more than nothing")
	}
	return nil
}

func (f callFlags) deadlines() llm.Deadlines {
	return llm.Deadlines{FirstByte: f.FirstByteTimeout, Idle: f.IdleTimeout, Total: f.CallTimeout, MaxBytes: f.MaxAnswer}
}

func (f callFlags) retry() llm.RetryPolicy { return llm.RetryPolicy{MaxRetryAfter: f.MaxHeldWait} }
