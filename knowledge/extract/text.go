package extract

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
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

func decodeUTF16(data []byte) string {
	little := data[0] == 0xFF
	units := make([]uint16, 0, len(data)/2)
	for i := 2; i+1 < len(data); i += 2 {
		if little {
			units = append(units, uint16(data[i])|uint16(data[i+1])<<8)
		} else {
			units = append(units, uint16(data[i])<<8|uint16(data[i+1]))
		}
	}
	return strings.ReplaceAll(string(utf16.Decode(units)), "\r\n", "\n")
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
	add := func(value any) {
		var lines []string
		flatten(&lines, "", value, 0)
		blocks = append(blocks, Block{Kind: Paragraph, Text: strings.Join(lines, "\n")})
	}
	for {
		var value any
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return blocks, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: value %d is not JSON", ErrInvalid, len(blocks)+1)
		}
		if list, ok := value.([]any); ok {
			for _, element := range list {
				add(element)
			}
			continue
		}
		add(value)
	}
}

// maxNesting bounds how deep JSON is unfolded.
const maxNesting = 64

// flatten writes a line "path: value" for every scalar, in the order of names.
func flatten(lines *[]string, at string, value any, depth int) {
	if depth > maxNesting {
		return
	}
	join := func(name string) string {
		if at == "" {
			return name
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
			flatten(lines, join(name), v[name], depth+1)
		}
	case []any:
		for _, element := range v {
			flatten(lines, at, element, depth+1)
		}
	case nil:
	default:
		text := fmt.Sprint(v)
		if at != "" {
			text = at + ": " + text
		}
		*lines = append(*lines, text)
	}
}
