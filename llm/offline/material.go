package offline

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/chainstream/chainstream/llm"
)

// material is what the composer finds in a conversation.
type material struct {
	task      task
	topic     string
	audience  string
	request   string     // the instruction in the user's words, one line
	documents []document // earlier outputs, in order
	passages  []string   // retrieved context, one line each
}

// document is an earlier output: one that stands in the user message, or a turn
// of the history.
type document struct {
	kind   string // "Outline", "Draft" …; empty for foreign texts
	title  string
	points []point
}

// point is a heading, list item or paragraph of a document.
type point struct {
	title string // may be empty
	text  string
}

// task is the kind of text that is asked for.
type task int

const (
	taskAnswer task = iota
	taskOutline
	taskDraft
	taskContrast
	taskMerge
	taskSummary
)

const (
	maxTopic     = 100 // runes
	maxSentence  = 220 // runes
	maxPoints    = 5
	maxDocuments = 4
	maxPassages  = 5
	maxInput     = 64 << 10 // bytes of a message that are read
)

// taskWords maps words of an instruction to tasks. The word that stands first
// decides; weak words count only where no other is found.
var (
	taskWords = []struct {
		task    task
		pattern *regexp.Regexp
	}{
		{taskOutline, regexp.MustCompile(`(?i)\b(outline|plan|structure|agenda)\b`)},
		{taskDraft, regexp.MustCompile(`(?i)\b(expand|elaborate|flesh out|case for|benefits?)\b`)},
		{taskContrast, regexp.MustCompile(`(?i)\b(contrast|compare|counter\w*|against|critici[sz]e|critique|challenge|risks?|objections?|sceptic\w*|skeptic\w*)\b`)},
		{taskMerge, regexp.MustCompile(`(?i)\b(merge|combine|synthesi[sz]e|unite|bring together|consolidate)\b`)},
		{taskSummary, regexp.MustCompile(`(?i)\b(summari[sz]e|summary|shorten|condense|tl;dr)`)},
	}
	weakDraftWords = regexp.MustCompile(`(?i)\b(write|draft|explain|describe|discuss|article|essay|report)\b`)
)

var (
	headingPattern  = regexp.MustCompile(`^(.*?)(?:^|\s)(#{1,6})\s+(\S.*?)\s*#*$`)
	itemPattern     = regexp.MustCompile(`^\s*(?:[-*+•]|\d{1,3}[.)])\s+(\S.*)$`)
	pronounPattern  = regexp.MustCompile(`(?i)^(?:(?:the|this|these|both|it|that|following|two|above|below|text|texts|drafts?|outline|briefs?)(?:\s+|$))+$`)
	boldLead        = regexp.MustCompile(`^\*\*(.+?)\*\*\s*[:.–—-]*\s*(.*)$`)
	titledKind      = regexp.MustCompile(`^(Outline|Draft|Counterpoint|Brief|Summary|Answer): (.+)$`)
	topicPattern    = regexp.MustCompile(`(?is)\b(?:about|on|regarding|concerning|topic:|subject:|question:)\s+(.+)`)
	audiencePattern = regexp.MustCompile(`(?i)^(.*\S)\s+for\s+(?:(?:an?|the|our|my)\s+)?(\S.*)$`)
	leadingVerb     = regexp.MustCompile(`(?i)^(?:please\s+)?(?:write|draft|explain|describe|discuss|summari[sz]e|outline|expand|contrast|compare|merge|combine|plan|tell me|give me)\s+(?:(?:an?|the|this|these|both|me)\s+)*`)
	contextStart    = regexp.MustCompile(`(?i)^\s*(?:<(?:context|knowledge|documents)\b[^>]*>|[#*\s]*(?:retrieved |relevant |additional )?(?:context|knowledge|sources|passages|excerpts)\b[^:]{0,60}:?[*\s]*)$`)
	contextEnd      = regexp.MustCompile(`(?i)^\s*</(?:context|knowledge|documents)>\s*$`)
	passageLead     = regexp.MustCompile(`^(?:\[\d{1,4}\]|\(\d{1,4}\)|\d{1,4}[.)]|[-*•>])\s*`)
	citationLead    = regexp.MustCompile(`^\s*\[\d{1,4}\]`)
	sentenceEnd     = regexp.MustCompile(`[.!?](?:\s|$)`)
	markup          = strings.NewReplacer("**", "", "`", "", "\x00", "\uFFFD")
)

// readMaterial finds the task, the topic, the earlier outputs and the retrieved
// context in a conversation.
func readMaterial(messages []llm.Message) material {
	prompt := lastUserText(messages)
	if len(prompt) > maxInput {
		prompt = prompt[:maxInput]
	}
	prompt, passages := splitContext(prompt)
	instruction, body := splitInstruction(prompt)

	m := material{request: clip(oneLine(instruction), maxSentence), passages: passages}
	m.documents = readDocuments(body)
	if len(m.documents) == 0 {
		for _, msg := range messages {
			if msg.Role == llm.RoleAssistant {
				m.documents = append(m.documents, readDocuments(clipBytes(msg.Text, maxInput))...)
			}
		}
	}
	if n := len(m.documents); n > maxDocuments {
		m.documents = m.documents[n-maxDocuments:]
	}
	m.task = readTask(instruction, len(m.documents) > 0)
	m.topic, m.audience = readTopic(instruction)
	for _, d := range m.documents {
		if d.kind != "" {
			m.topic = d.title
			break
		}
	}
	return m
}

// splitContext separates retrieved passages, which stand under a line such as
// "Context:" or between tags, from the rest of the prompt.
func splitContext(prompt string) (rest string, passages []string) {
	var kept, paragraph []string
	inside := false
	mark := ""    // of the passage with a number that the paragraphs belong to
	said := false // whether it has given its sentence
	flush := func() {
		if len(paragraph) > 0 && citationLead.MatchString(paragraph[0]) {
			mark, said = " "+strings.TrimSpace(citationLead.FindString(paragraph[0])), false
			// The document's name has its own line.
			if name := passageText(paragraph[:1]); len(paragraph) > 1 || !isProse(name) {
				mark = " (" + clip(name, maxTopic) + ")" + mark
				paragraph = paragraph[1:]
			}
		}
		text := passageText(paragraph)
		if mark != "" {
			text = fromSentence(text)
		}
		if text != "" && len(passages) < maxPassages && (mark == "" || !said && isProse(text)) {
			passages = append(passages, firstSentence(text)+mark)
			said = true
		}
		paragraph = paragraph[:0]
	}
	for i, line := range lines(prompt) {
		switch {
		case !inside && i > 0 && contextStart.MatchString(line):
			inside = true
		case inside && contextEnd.MatchString(line):
			flush()
			inside = false
		case !inside:
			kept = append(kept, line)
		case strings.TrimSpace(line) == "":
			flush()
		default:
			if passageLead.MatchString(strings.TrimSpace(line)) {
				flush()
			}
			paragraph = append(paragraph, line)
		}
	}
	flush()
	return strings.Join(kept, "\n"), passages
}

func passageText(paragraph []string) string {
	return passageLead.ReplaceAllString(oneLine(strings.Join(paragraph, " ")), "")
}

// fromSentence leaves out the end of a sentence that a passage begins with.
func fromSentence(text string) string {
	if first, _ := utf8.DecodeRuneInString(text); !unicode.IsLower(first) {
		return text
	}
	end := sentenceEnd.FindStringIndex(text)
	if end == nil {
		return ""
	}
	return text[end[1]:]
}

// isProse tells sentences from code, rules and rows of tables.
func isProse(text string) bool {
	letters := 0
	for _, r := range text {
		if unicode.IsLetter(r) || unicode.IsSpace(r) {
			letters++
		}
	}
	return !strings.HasPrefix(text, "|") && len(strings.Fields(text)) >= 4 && 5*letters >= 4*utf8.RuneCountInString(text)
}

// splitInstruction separates what the prompt asks for, its first paragraph up to
// the first heading, from the texts it brings along.
func splitInstruction(prompt string) (instruction, body string) {
	all := lines(strings.TrimSpace(prompt))
	for i, line := range all {
		if h := headingPattern.FindStringSubmatch(line); h != nil {
			rest := append([]string{h[2] + " " + h[3]}, all[i+1:]...)
			return strings.Join(append(all[:i:i], h[1]), "\n"), strings.Join(rest, "\n")
		}
		if strings.TrimSpace(line) == "" {
			return strings.Join(all[:i], "\n"), strings.Join(all[i+1:], "\n")
		}
	}
	return prompt, ""
}

// readDocuments splits a text at its headings of the first two levels.
func readDocuments(text string) []document {
	var docs []document
	var current *document
	section := ""     // heading of a lower level that waits for its text
	paragraph := true // a paragraph starts at the next line
	open := func(title string) {
		d := document{title: title}
		if k := titledKind.FindStringSubmatch(title); k != nil {
			d.kind, d.title = k[1], k[2]
		}
		docs = append(docs, d)
		current, section = &docs[len(docs)-1], ""
	}
	add := func(p point) {
		if current == nil {
			open("")
		}
		if p.title == "" {
			p.title = section
		}
		section = ""
		if len(current.points) < maxPoints {
			current.points = append(current.points, p)
		}
	}
	for _, line := range lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" {
			paragraph = true
			continue
		}
		starts := paragraph
		paragraph = false
		if trimmed == Label || strings.HasPrefix(trimmed, ">") || (strings.HasPrefix(trimmed, "*") && strings.HasSuffix(trimmed, "*") && !strings.HasPrefix(trimmed, "**")) {
			continue
		}
		if h := headingPattern.FindStringSubmatch(line); h != nil && strings.Count(h[2], "#") <= 2 {
			open(clip(oneLine(h[3]), maxTopic))
			continue
		} else if h != nil {
			section = clip(oneLine(h[3]), maxTopic)
			continue
		}
		if item := itemPattern.FindStringSubmatch(line); item != nil {
			p := point{text: item[1]}
			if b := boldLead.FindStringSubmatch(item[1]); b != nil {
				p = point{title: oneLine(b[1]), text: b[2]}
			}
			p.text = firstSentence(p.text)
			add(p)
			continue
		}
		// Of running text the first sentence of a paragraph counts, but in our own
		// documents only below a heading, which leaves out their introductions.
		if section != "" || (starts && (current == nil || current.kind == "")) {
			add(point{text: firstSentence(trimmed)})
		}
	}
	kept := docs[:0]
	for _, d := range docs {
		if len(d.points) > 0 || d.kind != "" {
			kept = append(kept, d)
		}
	}
	return kept
}

func readTask(instruction string, hasDocuments bool) task {
	best, at := taskAnswer, len(instruction)
	for _, w := range taskWords {
		if loc := w.pattern.FindStringIndex(instruction); loc != nil && loc[0] < at {
			best, at = w.task, loc[0]
		}
	}
	switch {
	case best == taskOutline && hasDocuments: // "Turn this outline into …"
		return taskDraft
	case best == taskAnswer && weakDraftWords.MatchString(instruction):
		return taskDraft
	}
	return best
}

// readTopic finds what an instruction is about, and for whom.
func readTopic(instruction string) (topic, audience string) {
	text := oneLine(instruction)
	if t := topicPattern.FindStringSubmatch(text); t != nil {
		text = t[1]
	} else {
		text = leadingVerb.ReplaceAllString(text, "")
	}
	if end := sentenceEnd.FindStringIndex(text); end != nil {
		text = text[:end[0]]
	}
	text = strings.TrimRight(text, " .:;,!?")
	if a := audiencePattern.FindStringSubmatch(text); a != nil && len(a[2]) < 60 {
		text, audience = a[1], a[2]
	}
	topic = clip(strings.Trim(text, " \"'“”‘’.:;,"), maxTopic)
	if topic == "" || pronounPattern.MatchString(topic) {
		topic = "the text"
	}
	return topic, audience
}

func lines(text string) []string {
	return strings.Split(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n")
}

// oneLine joins the words of a text with single spaces and removes inline
// Markdown, so that it can stand inside a sentence.
func oneLine(text string) string {
	return strings.Join(strings.Fields(markup.Replace(text)), " ")
}

func firstSentence(text string) string {
	text = oneLine(text)
	if end := sentenceEnd.FindStringIndex(text); end != nil && end[0] > 20 {
		text = text[:end[0]+1]
	}
	return clip(text, maxSentence)
}

// clip shortens text to limit runes, at a word where there is one.
func clip(text string, limit int) string {
	count := 0
	for i := range text {
		if count == limit {
			cut := text[:i]
			if space := strings.LastIndexByte(cut, ' '); space > len(cut)/2 {
				cut = cut[:space]
			}
			return strings.TrimRight(cut, " ,;:.") + "…"
		}
		count++
	}
	return text
}

func clipBytes(text string, limit int) string {
	if len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "")
	}
	return text
}
