package executor

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// A direct call is an execution of the built-in chain, which has one prompt and
// is made by a migration. What the model is asked is not rendered from the
// prompt but stored with the execution; everything else, from the queue to the
// log, is as for every chain.
const (
	// DirectChain is the id of the built-in chain and of its prompt: the largest
	// whole number that is exact in JavaScript. It is in no list of chains.
	DirectChain = 1<<53 - 1
	// DirectName is its name, which no chain of a user can have.
	DirectName = "_direct"

	directSlug     = "answer"
	directDocument = `{"name":"_direct","description":"One call of a model, as a client asked for it","prompts":[{"name":"Answer","position":1,"model":"offline/echo","content":"The messages of the call."}]}`
)

// Direct answers the trigger that asks one model for one answer. The model is
// provider/model; that of the request is not looked at.
func Direct(model string, call llm.Request) (Trigger, error) {
	c, err := chain.Load([]byte(directDocument))
	if err != nil {
		return Trigger{}, fmt.Errorf("read the built-in chain: %v", err) //nolint:errorlint // not wrapped: it is no problem with a request
	}
	stored, err := json.Marshal(documentOf(&call))
	if err != nil {
		return Trigger{}, fmt.Errorf("encode the call: %w", err)
	}
	t := Trigger{Version: &chain.Version{ChainID: DirectChain, Version: 1, Newest: 1, Chain: c, PromptIDs: []int64{DirectChain}}, Call: stored}
	t.Models = map[string]string{directSlug: model}
	return t, nil
}

// loadCall loads what a direct call asks.
func (r *run) loadCall() error {
	if r.ex.ChainID != DirectChain || r.call != nil {
		return nil
	}
	stored, err := r.e.store.Call(r.hold, r.ex.ID)
	if err != nil {
		return err
	}
	var d callDocument
	if err := json.Unmarshal(stored, &d); err != nil {
		return fmt.Errorf("read what the execution asks: %w", err)
	}
	r.call = d.request()
	return nil
}

// direct is the request of a direct call to a model.
func (r *run) direct(model string) llm.Request {
	req := *r.call
	req.Model = model
	return req
}

func (r *run) callHasTools() bool { return r.call != nil && len(r.call.Tools) > 0 }

// lastAsked answers the newest words of the user in a direct call.
func (r *run) lastAsked() string {
	if r.call == nil {
		return ""
	}
	for _, m := range slices.Backward(r.call.Messages) {
		if m.Role == llm.RoleUser {
			return m.Text
		}
	}
	return ""
}

// asked answers what a prompt had asked, as far as it is stored.
func (r *run) asked(s events.PromptState) llm.Request {
	if r.call != nil {
		return *r.call
	}
	return llm.Request{Messages: []llm.Message{{Role: llm.RoleUser, Text: s.UserMessage}}}
}
