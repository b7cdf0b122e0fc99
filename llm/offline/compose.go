package offline

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// compose writes the answer to a conversation: a heading that names the kind of
// text and the topic, a body made of the points that were found, quotations of
// retrieved passages, and the label.
func compose(messages []llm.Message) string {
	m := readMaterial(messages)
	var b strings.Builder
	switch m.task {
	case taskOutline:
		composeOutline(&b, m)
	case taskDraft:
		composeDraft(&b, m)
	case taskContrast:
		composeContrast(&b, m)
	case taskMerge:
		composeMerge(&b, m)
	case taskSummary:
		composeSummary(&b, m)
	case taskAnswer:
		composeAnswer(&b, m)
	}
	if len(m.passages) > 0 {
		b.WriteString("### What the sources say\n\n")
		for _, p := range m.passages {
			fmt.Fprintf(&b, "> %s\n\n", p)
		}
	}
	b.WriteString(Label)
	return b.String()
}

// outlines are the section plans a topic may get, each text with the topic in
// place of %s.
var outlines = [][]point{
	{
		{"Starting point", "What is meant by %s today, and who is affected."},
		{"How it works", "The parts that matter and how they depend on each other."},
		{"What speaks for it", "The gains that can be measured, and how soon they show."},
		{"What it costs", "Money, time and attention, at the start and later on."},
		{"Next steps", "A small trial with a clear question and a date to decide."},
	},
	{
		{"The question", "Why people ask about %s now."},
		{"What is known", "Facts that hold whatever one thinks of the matter."},
		{"Where opinions differ", "The two or three assumptions that decide the answer."},
		{"Options", "Doing nothing, starting small, or committing fully."},
		{"Recommendation", "The option that can be taken back most easily."},
	},
	{
		{"Background", "How %s came about, in a few sentences."},
		{"Current practice", "What experienced people do, and what they no longer do."},
		{"Strengths", "Where it works well without special care."},
		{"Weak spots", "Where it fails first, and how one notices in time."},
		{"Outlook", "What is likely to change, and what will stay."},
	},
}

// pick chooses by the topic, so that topics differ and each stays the same.
func pick(topic string, n int) int {
	h := fnv.New32a()
	h.Write([]byte(strings.ToLower(topic)))
	return int(h.Sum32() % uint32(n))
}

// planFor returns the points of a topic about which nothing is known yet.
func planFor(topic string) []point {
	plan := outlines[pick(topic, len(outlines))]
	points := make([]point, len(plan))
	for i, p := range plan {
		points[i] = point{title: p.title, text: strings.ReplaceAll(p.text, "%s", topic)}
	}
	return points
}

// points returns the points of all earlier outputs, or a plan where there are
// none.
func (m material) points() []point {
	var points []point
	for _, d := range m.documents {
		points = append(points, d.points...)
	}
	if len(points) == 0 {
		return planFor(m.topic)
	}
	return points[:min(len(points), maxPoints)]
}

func (m material) heading(b *strings.Builder, kind string) {
	fmt.Fprintf(b, "## %s: %s\n\n", kind, m.topic)
	if m.audience != "" {
		fmt.Fprintf(b, "*For: %s*\n\n", m.audience)
	}
}

func composeOutline(b *strings.Builder, m material) {
	m.heading(b, "Outline")
	for i, p := range m.points() {
		fmt.Fprintf(b, "%d. **%s**: %s\n", i+1, p.name(i), p.text)
	}
	fmt.Fprintf(b, "\nThe order leads from what is known about %s to what should be decided.\n\n", m.topic)
}

// bridges carry a point of a draft on.
var bridges = []string{
	"This comes first, because everything after it rests on it.",
	"In practice it is the details that decide, so they deserve a closer look.",
	"An example makes it clear sooner than a definition would.",
	"It is worth putting a figure on it, even a rough one.",
	"What follows from it can be done in small steps.",
}

func composeDraft(b *strings.Builder, m material) {
	m.heading(b, "Draft")
	fmt.Fprintf(b, "This draft follows %s and takes its points in order.\n\n", m.origin())
	for i, p := range m.points() {
		fmt.Fprintf(b, "### %s\n\n%s %s\n\n", p.name(i), p.sentence(), bridges[i%len(bridges)])
	}
	fmt.Fprintf(b, "### Conclusion\n\nTaken together, these points make a case for looking at %s step by step.\n\n", m.topic)
}

// doubts answer a point of a text that is to be contrasted.
var doubts = []string{
	"True only as long as the circumstances stay as they are.",
	"The effort is easily underestimated, above all at the beginning.",
	"Others have reached the same goal in a simpler way.",
	"The benefit shows late, the cost at once.",
	"Without a measure of success nobody will know whether it worked.",
}

func composeContrast(b *strings.Builder, m material) {
	m.heading(b, "Counterpoint")
	fmt.Fprintf(b, "Every point of %s has another side.\n\n", m.origin())
	for i, p := range m.points() {
		fmt.Fprintf(b, "- **%s**: %s The point was: %s\n", p.name(i), doubts[i%len(doubts)], quote(p.sentence()))
	}
	fmt.Fprintf(b, "\n### Conclusion\n\nThe objections do not speak against %s as such; they say what has to be settled before.\n\n", m.topic)
}

func composeMerge(b *strings.Builder, m material) {
	m.heading(b, "Brief")
	if len(m.documents) == 0 {
		fmt.Fprintf(b, "There is no earlier text to merge, so this brief stands on the request alone: %s\n\n", quote(m.request))
	} else {
		fmt.Fprintf(b, "This brief brings together %s.\n\n", m.origin())
	}
	for i, d := range m.documents {
		fmt.Fprintf(b, "### From %s\n\n", d.name(i))
		for j, p := range d.points[:min(len(d.points), 3)] {
			if p.title == "" {
				fmt.Fprintf(b, "- %s\n", p.sentence())
				continue
			}
			fmt.Fprintf(b, "- **%s**: %s\n", p.name(j), p.sentence())
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "### Conclusion\n\nThe texts share one subject, %s, and differ in how soon to act. A small, measurable first step serves both.\n\n", m.topic)
}

func composeSummary(b *strings.Builder, m material) {
	m.heading(b, "Summary")
	points := m.points()
	for i, p := range points[:min(len(points), 3)] {
		if p.title == "" {
			fmt.Fprintf(b, "- %s\n", p.sentence())
			continue
		}
		fmt.Fprintf(b, "- **%s**: %s\n", p.name(i), p.sentence())
	}
	fmt.Fprintf(b, "\nIn one sentence: these points decide what to make of %s.\n\n", m.topic)
}

func composeAnswer(b *strings.Builder, m material) {
	m.heading(b, "Answer")
	if m.request != "" {
		fmt.Fprintf(b, "You wrote: %s\n\n", quote(m.request))
	}
	if len(m.documents) > 0 {
		fmt.Fprintf(b, "Earlier in this conversation there was %s. Its points were:\n\n", m.origin())
		for i, p := range m.points() {
			fmt.Fprintf(b, "- **%s**: %s\n", p.name(i), p.sentence())
		}
		b.WriteString("\n")
	}
	b.WriteString("A language model would answer here. This demo model only shows that the prompt arrived as it was meant, and what came with it.\n\n")
}

// origin names what a text builds on.
func (m material) origin() string {
	if len(m.documents) == 0 {
		return "the request " + quote(m.request)
	}
	names := make([]string, len(m.documents))
	for i, d := range m.documents {
		names[i] = d.name(i)
	}
	if len(names) == 1 {
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func (d document) name(i int) string {
	switch {
	case d.kind != "":
		return "the " + strings.ToLower(d.kind)
	case d.title != "":
		return quote(d.title)
	default:
		return fmt.Sprintf("text %d", i+1)
	}
}

func (p point) name(i int) string {
	if p.title != "" {
		return p.title
	}
	return fmt.Sprintf("Point %d", i+1)
}

// sentence returns the text of a point, ended like a sentence.
func (p point) sentence() string {
	text := p.text
	if text == "" {
		text = p.title
	}
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "!") && !strings.HasSuffix(text, "?") && !strings.HasSuffix(text, "…") {
		text += "."
	}
	return text
}

func quote(text string) string { return "“" + text + "”" }
