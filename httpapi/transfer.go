package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
)

// What became of an entry of an import.
const (
	importCreated = "created"
	importUpdated = "updated" // a new version of the chain that had the name
	importRefused = "refused"
)

// importEntry says what became of one chain of an import.
type importEntry struct {
	Pointer string         `json:"pointer"` // the entry in what was sent
	Name    string         `json:"name"`    // as it was called there
	Result  string         `json:"result"`
	Chain   string         `json:"chain,omitempty"` // the name of the chain
	ID      int64          `json:"id,omitempty"`
	Version int            `json:"version,omitempty"`
	Changes []change       `json:"changes"` // what could not be taken over as it was
	Errors  []problemError `json:"errors"`  // why it was refused
}

// change is one thing that another format cannot express.
type change struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func changesOf(list []chain.Change) []change {
	out := make([]change, len(list))
	for i, c := range list {
		out[i] = change{c.Pointer, c.Detail}
	}
	return out
}

// importChains takes a chain document, or the version 1.0 document with several
// assistants. Each entry stands for itself: one that is refused does not keep
// the others out. With replace=true a name that exists gets a new version.
func (s *Server) importChains(c echo.Context) error {
	q := newQuery(c)
	replace := q.flag("replace", false)
	if q.err != nil {
		return q.err
	}
	body, m, err := s.body(c, mediaJSON, mediaYAML)
	if err != nil {
		return err
	}
	var entries []importEntry
	var chains []*chain.Chain // in the order of the entries that can be taken
	if m == mediaJSON && hasAssistants(body) {
		var report chain.ImportReport
		if chains, report, err = chain.ImportAssistants(body); err != nil {
			return err
		}
		for _, a := range report.Assistants {
			e := importEntry{Pointer: a.Pointer, Name: a.Name, Chain: a.Chain, Changes: changesOf(a.Changes), Errors: problemErrors(a.Problems)}
			if len(a.Problems) > 0 {
				e.Result = importRefused
			}
			entries = append(entries, e)
		}
	} else {
		doc, err := chain.Parse(body, formatOf(m))
		if err != nil {
			return err
		}
		chains = []*chain.Chain{doc}
		entries = []importEntry{{Name: doc.Name, Chain: doc.Name, Changes: []change{}, Errors: []problemError{}}}
	}
	next := 0
	for i := range entries {
		if entries[i].Result == importRefused {
			continue
		}
		if err := s.take(c, &entries[i], chains[next], replace); err != nil {
			return err
		}
		next++
	}
	return c.JSON(http.StatusOK, list[importEntry]{Items: entries})
}

func hasAssistants(body []byte) bool {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil {
		return false
	}
	_, ok := doc["assistants"]
	return ok
}

// take stores one chain of an import.
func (s *Server) take(c echo.Context, e *importEntry, doc *chain.Chain, replace bool) error {
	ctx := c.Request().Context()
	if err := s.cfg.Runner.Check(ctx, doc); err != nil {
		list, ok := isProblems(err)
		if !ok {
			return err
		}
		e.Result, e.Errors = importRefused, problemErrors(list)
		return nil
	}
	e.Result = importCreated
	v, err := s.cfg.Store.CreateChain(ctx, doc)
	if errors.Is(err, chain.ErrNameTaken) {
		if !replace {
			e.Result = importRefused
			e.Errors = []problemError{{Pointer: e.Pointer, Code: kindChainExists.code, Detail: "a chain with this name exists; import with replace=true to make a new version of it"}}
			return nil
		}
		e.Result = importUpdated
		if v, err = s.cfg.Store.ChainByName(ctx, doc.Name, 0); err == nil {
			v, err = s.cfg.Store.UpdateChain(ctx, v.ChainID, doc)
		}
	}
	if err != nil {
		return err
	}
	e.ID, e.Version = v.ChainID, v.Version
	return nil
}

func (s *Server) exportChain(c echo.Context) error {
	q := newQuery(c)
	version := versionParameter(q)
	format := "yaml"
	if q.values.Has("format") {
		format = q.one("format")
	}
	if format != "yaml" && format != "json" && format != "assistants" {
		q.fail("format", "One of yaml, json or assistants is expected.")
	}
	if q.err != nil {
		return q.err
	}
	v, err := s.addressed(c, version)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	name, media := v.Chain.Name+"."+format, "application/json"
	var body []byte
	switch format {
	case "yaml":
		body, media = v.Chain.YAML(), "application/yaml"
	case "json":
		body = v.Chain.JSON()
	case "assistants":
		var report chain.ExportReport
		body, report = chain.ExportAssistants([]*chain.Chain{v.Chain})
		name = v.Chain.Name + ".assistants.json"
		lost := []change{}
		for _, a := range report.Assistants {
			lost = append(lost, changesOf(a.Changes)...)
		}
		h.Set("Export-Changes", headerJSON(lost))
	}
	h.Set(echo.HeaderContentDisposition, `attachment; filename="`+name+`"`) // a slug needs no quoting
	return c.Blob(http.StatusOK, media, body)
}

// headerJSON writes what an export lost as one line of ASCII. A header has
// little room, so the list may be cut; its last entry says so then.
func headerJSON(list []change) string {
	const most = 4 << 10
	var b []byte
	for n := len(list); ; n = n / 2 {
		shown := list[:n:n]
		if n < len(list) {
			shown = append(shown, change{Detail: "and more"})
		}
		raw, err := json.Marshal(shown)
		if err != nil {
			panic("httpapi: encode changes: " + err.Error()) // strings only
		}
		if b = ascii(raw); len(b) <= most || n == 0 {
			return string(b)
		}
	}
}

// ascii escapes what is not ASCII in a JSON text.
func ascii(raw []byte) []byte {
	const hex = "0123456789abcdef"
	unit := func(dst []byte, u rune) []byte {
		return append(dst, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
	}
	var out []byte
	for _, r := range string(raw) {
		switch {
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case r >= 0x10000:
			r -= 0x10000
			out = unit(unit(out, 0xd800+r>>10), 0xdc00+r&0x3ff)
		default:
			out = unit(out, r)
		}
	}
	return out
}
