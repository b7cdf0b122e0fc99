package extract

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// pagesOfText takes plain text apart at blank lines. A document of one page has
// no page numbers.
func pagesOfText(pages []string) []Block {
	var blocks []Block
	for i, page := range pages {
		number := i + 1
		if len(pages) == 1 {
			number = 0
		}
		for _, paragraph := range splitAtBlankLines(page) {
			blocks = append(blocks, Block{Kind: Paragraph, Text: paragraph, Page: number})
		}
	}
	return blocks
}

func splitAtBlankLines(text string) []string {
	var out []string
	var lines []string
	flush := func() {
		if len(lines) > 0 {
			out = append(out, strings.Join(lines, "\n"))
			lines = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			flush()
			continue
		}
		lines = append(lines, strings.TrimRight(line, " \t\r"))
	}
	flush()
	return out
}

// readCSV makes a line of every row, each value after the name of its column, so
// that a row can be understood alone.
func readCSV(text string) ([]Block, error) {
	reader := csv.NewReader(strings.NewReader(text))
	reader.FieldsPerRecord = -1
	reader.LazyQuotes = true
	reader.Comma = separator(text)
	var head []string
	var blocks []Block
	size := 0 // with the names of columns, which are repeated
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return blocks, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if head == nil {
			head = row
			continue
		}
		var parts []string
		for i, value := range row {
			if value = strings.TrimSpace(value); value == "" {
				continue
			}
			if i < len(head) && strings.TrimSpace(head[i]) != "" {
				value = strings.TrimSpace(head[i]) + ": " + value
			}
			if size += len(value) + 1; size > MaxText {
				return nil, ErrTooLarge
			}
			parts = append(parts, value)
		}
		blocks = append(blocks, Block{Kind: Paragraph, Text: strings.Join(parts, "\n")})
	}
}

// separator answers the sign that stands most often in the first line; a comma
// only if no other does, because numbers and texts have commas, too.
func separator(text string) rune {
	first, _, _ := strings.Cut(text, "\n")
	best, most := ',', 0
	for _, sign := range []rune{'\t', ';', ',', '|'} {
		if n := strings.Count(first, string(sign)); n > most {
			best, most = sign, n
		}
	}
	return best
}

// readJSONL makes a block of every value: one after the other, or the elements of
// one list. The fields of objects become lines.
func readJSONL(text string) ([]Block, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var blocks []Block
	var f flattener
	add := func(value any) error {
		f.lines.Reset()
		if err := f.flatten("", value, 0); err != nil {
			return err
		}
		blocks = append(blocks, Block{Kind: Paragraph, Text: f.lines.String()})
		return nil
	}
	for values := 1; ; values++ {
		var value any
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return blocks, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: value %d is not JSON", ErrInvalid, values)
		}
		elements, ok := value.([]any)
		if !ok {
			elements = []any{value}
		}
		for _, element := range elements {
			if err := add(element); err != nil {
				return nil, err
			}
		}
	}
}

// maxNesting bounds how many names a line of JSON begins with.
const maxNesting = 64

// flattener writes a line "path: value" for every scalar, in the order of names.
type flattener struct {
	lines strings.Builder // of one value
	size  int             // of all
}

func (f *flattener) flatten(at string, value any, depth int) error {
	join := func(name string) string {
		switch {
		case at == "":
			return name
		case depth >= maxNesting:
			return at
		}
		return at + "." + name
	}
	switch v := value.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := f.flatten(join(name), v[name], depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, element := range v {
			if err := f.flatten(at, element, depth+1); err != nil {
				return err
			}
		}
	case nil:
	default:
		text := fmt.Sprint(v)
		if at != "" {
			text = at + ": " + text
		}
		if f.size += len(text) + 1; f.size > MaxText {
			return ErrTooLarge
		}
		f.lines.WriteString(text)
		f.lines.WriteByte('\n')
	}
	return nil
}
