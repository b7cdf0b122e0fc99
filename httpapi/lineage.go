package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// retry is POST /api/v1/executions/{id}/retry: a new execution that takes over
// what had succeeded and runs the rest.
func (s *Server) retry(c echo.Context) error {
	return s.derive(c, executor.OriginRetry, func(r *fieldReader, _ *executor.Derivation) {
		r.surplus("metadata", "limits", "cache")
	})
}

// fork is POST /api/v1/executions/{id}/fork: a new execution that takes over what
// stands before a prompt and runs the rest, possibly with changes.
func (s *Server) fork(c echo.Context) error {
	return s.derive(c, executor.OriginFork, func(r *fieldReader, d *executor.Derivation) {
		d.FromPrompt = r.prompt()
		d.Inputs = r.object("inputs")
		d.Version = r.version()
		d.Model, d.Models = r.models()
		r.surplus("fromPrompt", "inputs", "version", "model", "metadata", "limits", "cache")
	})
}

// derive starts an execution that comes from another one.
func (s *Server) derive(c echo.Context, origin executor.Origin, read func(*fieldReader, *executor.Derivation)) error {
	id, err := executionID(c)
	if err != nil {
		return err
	}
	body, err := s.optionalBody(c)
	if err != nil {
		return err
	}
	// Two executions may be retried with equal bodies: the key names one of them.
	scope := string(origin) + " " + strconv.FormatInt(id, 10) + " "
	return s.start(c, scope, body, func(ctx context.Context) (executor.Trigger, error) {
		r, err := requestObject(body)
		if err != nil {
			return executor.Trigger{}, err
		}
		d := executor.Derivation{Parent: id, Origin: origin}
		read(r, &d)
		d.Metadata, d.Limits, d.Cache = r.metadata(), r.limits(), r.cache()
		t, err := s.cfg.Runner.Derive(ctx, d)
		list, ok := isProblems(err)
		if err != nil && !ok {
			return executor.Trigger{}, err
		}
		if list = append(r.problems, list...); len(list) > 0 {
			return executor.Trigger{}, inputProblem(list)
		}
		return t, s.runnable(ctx, limited(t.Version.Chain.WithModels(t.Models), t.Limits))
	})
}

// optionalBody reads a JSON body; none is an empty object.
func (s *Server) optionalBody(c echo.Context) ([]byte, error) {
	req := c.Request()
	if req.ContentLength == 0 || req.ContentLength < 0 && req.Header.Get(echo.HeaderContentType) == "" {
		data, err := s.read(c, s.cfg.MaxBody)
		if err == nil && len(data) == 0 {
			data = []byte("{}")
		} else if err == nil {
			err = &problem{kind: kindMediaType, detail: "The request has no Content-Type; send application/json."}
		}
		return data, err
	}
	body, _, err := s.body(c, mediaJSON)
	return body, err
}

// prompt reads which prompt is meant: a number is an id, a string an id, a slug
// or a name.
func (r *fieldReader) prompt() string {
	raw, ok := r.field("fromPrompt")
	if !ok {
		return ""
	}
	var name string
	if json.Unmarshal(raw, &name) == nil && name != "" {
		return name
	}
	if _, ok := pathID(string(raw)); !ok {
		r.add("/fromPrompt", chain.CodeWrongType, "must be the id, the slug or the name of a prompt")
		return ""
	}
	return string(raw)
}

// models reads which models stand in for those of the chain: one for all prompts
// that run, or an object from slug to model.
func (r *fieldReader) models() (all string, single map[string]string) {
	raw, ok := r.field("model")
	if !ok {
		return "", nil
	}
	if json.Unmarshal(raw, &all) == nil && all != "" {
		return all, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		r.add("/model", chain.CodeWrongType, "must be a model such as openai/gpt-4.1-mini, or an object from a prompt's slug to its model")
		return "", nil
	}
	single = make(map[string]string, len(members))
	for _, slug := range slices.Sorted(maps.Keys(members)) {
		var model string
		if err := json.Unmarshal(members[slug], &model); err != nil || model == "" {
			r.add("/model/"+pointerEscaper.Replace(slug), chain.CodeWrongType, "must be a model such as openai/gpt-4.1-mini")
			continue
		}
		single[slug] = model
	}
	return "", single
}

// sendPast answers with the execution as it was after one of its events.
func (s *Server) sendPast(c echo.Context, id int64, at string) error {
	seq, err := events.ParseCursor(at)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	ex, err := s.cfg.Store.Execution(ctx, id)
	if err != nil {
		return err
	}
	if seq > ex.LastSeq {
		return fmt.Errorf("execution %d after event %d of %d: %w", id, seq, ex.LastSeq, events.ErrFutureCursor)
	}
	version, err := s.cfg.Store.PinnedVersion(ctx, ex.ChainID, ex.ChainVersion)
	if err != nil {
		return err
	}
	past, err := s.pastOf(ctx, id, seq)
	if errors.Is(err, events.ErrGone) && seq == ex.LastSeq && ex.Status.Final() {
		return s.sendExecution(c, http.StatusOK, id) // how it ended is stored, too
	}
	if err != nil {
		return err
	}
	detail := detailOf(ex.At(past), version, past.Prompts())
	if detail.Call, err = s.askedBy(ctx, ex); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, detail)
}

// pastOf folds the log of an execution up to an event, or answers events.ErrGone
// when some of it has been removed.
func (s *Server) pastOf(ctx context.Context, id, seq int64) (*events.Fold, error) {
	past := events.NewFold()
	for past.LastSeq() < seq {
		page, err := s.cfg.Store.Events(ctx, id, past.LastSeq(), int(min(downloadRows, seq-past.LastSeq())))
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			return nil, fmt.Errorf("events of execution %d after %d: %w", id, past.LastSeq(), events.ErrGone)
		}
		for _, rec := range page {
			if rec.Seq != past.LastSeq()+1 {
				return nil, fmt.Errorf("events of execution %d after %d: %w", id, past.LastSeq(), events.ErrGone)
			}
			if err := past.Add(rec); err != nil {
				return nil, err
			}
		}
	}
	return past, nil
}
