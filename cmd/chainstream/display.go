package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/sseclient"
	"github.com/chainstream/chainstream/llm"
)

// The events that end an execution.
const (
	eventComplete = string(events.TypeExecutionComplete)
	eventError    = string(events.TypeExecutionError)
)

// display shows the events of an execution as they come.
type display interface {
	show(e sseclient.Event) error
}

// newDisplay answers the display for standard output.
func (a *app) newDisplay(asJSON bool) display {
	if asJSON {
		return lines{a.stdout}
	}
	return &transcript{w: a.stdout, live: isTerminal(a.stdout), prompts: make(map[int64]*shownPrompt)}
}

// remark tells the user something beside the output.
func (a *app) remark(format string, args ...any) {
	fmt.Fprintf(a.stderr, "chainstream: %s\n", printable(fmt.Sprintf(format, args...))) // a remark may be lost
}

// lines prints one line per event, its data exactly as the log has it.
type lines struct{ w io.Writer }

func (l lines) show(e sseclient.Event) error {
	name, err := json.Marshal(e.Type)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.w, `{"id": %d, "event": %s, "data": %s}`+"\n", e.ID, name, e.Data); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// eventData is what a transcript reads of the data of events.
type eventData struct {
	ExecutionID    int64     `json:"executionId"`
	TotalPrompts   int       `json:"totalPrompts"`
	ToolName       string    `json:"toolName"`
	ChainVersion   int       `json:"chainVersion"`
	PromptID       int64     `json:"promptId"`
	PromptName     string    `json:"promptName"`
	Position       int       `json:"position"`
	ModelID        string    `json:"modelId"`
	Attempt        int       `json:"attempt"`
	Text           string    `json:"text"`
	Output         string    `json:"output"`
	Reason         string    `json:"reason"`
	Timestamp      time.Time `json:"timestamp"`
	Delay          int64     `json:"delay"`
	Duration       int64     `json:"duration"`
	OutputTokens   int64     `json:"outputTokens"`
	TotalTokens    int64     `json:"totalTokens"`
	CostUSD        string    `json:"costUsd"`
	DocumentsFound int       `json:"documentsFound"`
	RelevanceScore float64   `json:"relevanceScore"`
	Success        bool      `json:"success"`
	CurrentStep    int       `json:"currentStep"`
	TotalSteps     int       `json:"totalSteps"`
	Percentage     float64   `json:"percentage"`
	Error          string    `json:"error"`
	Code           string    `json:"code"`
	Cached         bool      `json:"cached"`
	ReusedFrom     *struct {
		ExecutionID int64 `json:"executionId"`
	} `json:"reusedFrom"`
}

// decodeEvent reads what it can: the data of events that are newer than this
// program may have other fields.
func decodeEvent(e sseclient.Event) eventData {
	var d eventData
	_ = json.Unmarshal(e.Data, &d) // fields of unexpected types stay empty
	return d
}

// transcript shows an execution to people: a line per step and the text of the
// prompts. On a terminal the text of one prompt at a time grows in place, and
// what its siblings write meanwhile follows when it is done; elsewhere every
// line of text carries the name of its prompt.
type transcript struct {
	w       io.Writer
	live    bool
	prompts map[int64]*shownPrompt
	order   []*shownPrompt // as they started
	focus   *shownPrompt   // whose text grows in place; nil = none
	midline bool           // the cursor stands behind text
	err     error          // of the first write that failed
}

// shownPrompt is what has to be remembered of a prompt.
type shownPrompt struct {
	name      string
	heading   string          // name, position and model
	announced bool            // the heading has been shown
	pending   strings.Builder // text that has not been shown
	wrote     bool            // it streamed text in its current attempt
	closing   string          // the line that closes it and has not been shown
}

func (t *transcript) show(e sseclient.Event) error {
	d := decodeEvent(e)
	switch events.Type(e.Type) {
	case events.TypeExecutionStart:
		t.line("execution %d: %s, version %d, %s", d.ExecutionID, d.ToolName, d.ChainVersion, count(d.TotalPrompts, "prompt"))
	case events.TypePromptStart:
		t.start(d)
	case events.TypePromptDelta:
		t.text(d)
	case events.TypePromptRetry:
		p := t.prompt(d.PromptID)
		if wait := time.Duration(d.Delay) * time.Millisecond; wait > llm.DefaultMaxRetryAfter {
			if t.live && t.focus != p {
				p.pending.Reset()
			}
			t.flush(p)
			t.line("! %s: waiting until %s for attempt %d, its text so far is void: %s", p.name, d.Timestamp.Add(wait).Local().Format(time.DateTime), d.Attempt, d.Reason)
			break
		}
		if t.live && t.focus != p {
			p.pending.Reset() // nobody has seen it
			break
		}
		t.flush(p)
		t.line("! %s: attempt %d in %s, the text above is void: %s", p.name, d.Attempt, milliseconds(d.Delay), d.Reason)
	case events.TypeKnowledgeRetrieved:
		t.line("  %s: %s found, relevance %.2f%s", t.prompt(d.PromptID).name, count(d.DocumentsFound, "passage"), d.RelevanceScore, suffix(d.Error))
	case events.TypeToolExecutionStart:
		t.line("  %s: calls the tool %s", t.prompt(d.PromptID).name, d.ToolName)
	case events.TypeToolExecutionComplete:
		t.line("  %s: the tool %s answered in %s%s", t.prompt(d.PromptID).name, d.ToolName, milliseconds(d.Duration), suffix(d.Error))
	case events.TypePromptComplete:
		p := t.prompt(d.PromptID)
		if !p.wrote && d.Output != "" {
			p.pending.WriteString(d.Output)
		}
		if d.ReusedFrom != nil {
			t.end(p, fmt.Sprintf("= %s: taken over from execution %d", p.name, d.ReusedFrom.ExecutionID))
			break
		}
		if d.Cached {
			t.end(p, fmt.Sprintf("= %s: answered from the cache in %s%s", p.name, milliseconds(d.Duration), money(d.CostUSD)))
			break
		}
		t.end(p, fmt.Sprintf("= %s: done in %s, %s%s", p.name, milliseconds(d.Duration), count(int(d.OutputTokens), "token"), money(d.CostUSD)))
	case events.TypePromptError:
		p := t.prompt(d.PromptID)
		t.end(p, fmt.Sprintf("x %s: %s (%s)", p.name, d.Error, d.Code))
	case events.TypeProgress:
		t.progress(d)
	case events.TypeApprovalRequested:
		t.line("? %s: waits for an approval", t.prompt(d.PromptID).name)
	case events.TypeExecutionComplete:
		t.finish()
		t.line("completed in %s, %s%s", milliseconds(d.Duration), count(int(d.TotalTokens), "token"), money(d.CostUSD))
	case events.TypeExecutionError:
		t.finish()
		if d.Code == "cancelled" {
			t.line("cancelled")
		} else {
			t.line("failed: %s (%s)", d.Error, d.Code)
		}
	default: // requests to models, variables, reasoning: --json has them
	}
	return t.err
}

// prompt answers what is remembered of a prompt, also of one whose start lies
// before the first event that is shown.
func (t *transcript) prompt(id int64) *shownPrompt {
	p := t.prompts[id]
	if p == nil {
		p = &shownPrompt{name: fmt.Sprintf("prompt %d", id), announced: true}
		t.prompts[id] = p
		t.order = append(t.order, p)
	}
	return p
}

func (t *transcript) start(d eventData) {
	p := t.prompt(d.PromptID)
	p.name, p.wrote, p.announced = cmp.Or(d.PromptName, p.name), false, false
	p.heading = fmt.Sprintf("%s: position %d, %s", p.name, d.Position, d.ModelID)
	if d.Attempt > 1 {
		p.heading += fmt.Sprintf(", attempt %d", d.Attempt)
	}
	if t.live && t.focus == nil {
		t.focus = p
	}
	if !t.live || t.focus == p {
		t.announce(p) // else when its text is shown
	}
}

func (t *transcript) text(d eventData) {
	p := t.prompt(d.PromptID)
	p.wrote = true
	p.pending.WriteString(d.Text)
	if t.live {
		if t.focus == nil { // its start lies before the first event that is shown
			t.focus = p
		}
		if t.focus == p {
			t.stream(p)
		}
		return
	}
	text := p.pending.String()
	end := strings.LastIndexByte(text, '\n')
	if end < 0 {
		return
	}
	p.pending.Reset()
	p.pending.WriteString(text[end+1:])
	t.prefixed(p, text[:end])
}

// stream shows the pending text of a prompt in place.
func (t *transcript) stream(p *shownPrompt) {
	text := printable(p.pending.String())
	p.pending.Reset()
	for piece := range strings.Lines(text) {
		if !t.midline && piece != "\n" {
			t.write("  ")
		}
		t.write(piece)
		t.midline = !strings.HasSuffix(piece, "\n")
	}
}

// prefixed shows lines of text with the name of their prompt.
func (t *transcript) prefixed(p *shownPrompt, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		t.line("%s | %s", p.name, line)
	}
}

// flush shows all text of a prompt that has not been shown.
func (t *transcript) flush(p *shownPrompt) {
	switch {
	case p.pending.Len() == 0:
	case t.live:
		t.stream(p)
	default:
		text := strings.TrimSuffix(p.pending.String(), "\n")
		p.pending.Reset()
		t.prefixed(p, text)
	}
}

// end closes a prompt. While a sibling has the terminal, that waits.
func (t *transcript) end(p *shownPrompt, line string) {
	p.closing = line
	if t.focus != nil && t.focus != p {
		return
	}
	t.focus = nil
	t.release(p)
	if t.live {
		t.catchUp()
	}
}

// release shows everything that is known of a prompt.
func (t *transcript) release(p *shownPrompt) {
	if !p.announced {
		t.announce(p)
	}
	t.flush(p)
	if p.closing != "" {
		t.line("%s", p.closing)
		p.closing = ""
	}
}

// catchUp shows what siblings did while another prompt had the terminal. The
// first that is still at work gets it now.
func (t *transcript) catchUp() {
	for _, p := range t.order {
		if t.focus != nil {
			return
		}
		if p.pending.Len() > 0 || p.closing != "" || !p.announced {
			atWork := p.closing == ""
			t.release(p)
			if atWork {
				t.focus = p
			}
		}
	}
}

// finish shows what is left at the end.
func (t *transcript) finish() {
	t.focus = nil
	for _, p := range t.order {
		if p.pending.Len() > 0 || p.closing != "" {
			t.release(p)
		}
	}
}

// announce shows that a prompt is at work.
func (t *transcript) announce(p *shownPrompt) {
	p.announced = true
	t.line("> %s", p.heading)
}

func (t *transcript) progress(d eventData) {
	if t.focus == nil {
		t.line("- %d of %d, %.0f %%", d.CurrentStep, d.TotalSteps, d.Percentage)
	}
}

// line writes a line of its own.
func (t *transcript) line(format string, args ...any) {
	if t.midline {
		t.write("\n")
		t.midline = false
	}
	t.write(strings.ReplaceAll(printable(fmt.Sprintf(format, args...)), "\n", " ") + "\n")
}

func (t *transcript) write(s string) {
	if t.err != nil {
		return
	}
	if _, err := io.WriteString(t.w, s); err != nil {
		t.err = fmt.Errorf("write to standard output: %w", err)
	}
}

// printable removes what could steer a terminal: what models and users write is
// shown as text. Line ends and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case unicode.IsControl(r), r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // and turning the direction of text
			return -1
		}
		return r
	}, s)
}

func milliseconds(ms int64) string {
	if ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func money(usd string) string {
	if usd == "" || strings.Trim(usd, "0.") == "" {
		return ""
	}
	return ", $" + usd
}

func suffix(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}
