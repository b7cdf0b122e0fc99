package anthropic

import "strings"

// cutter ends the answer at stop texts that the API refuses: those of white space
// only. It holds back the start of one at the end of a piece until the next.
type cutter struct {
	stops []string
	held  string
	cut   bool
}

// text returns what of the next piece comes before a stop text.
func (c *cutter) text(piece string) string {
	if c.cut {
		return ""
	}
	if len(c.stops) == 0 {
		return piece
	}
	text := c.held + piece
	c.held = ""
	end := len(text)
	for _, stop := range c.stops {
		if i := strings.Index(text, stop); i >= 0 && i < end {
			end, c.cut = i, true
		}
	}
	if c.cut {
		return text[:end]
	}
	keep := 0
	for _, stop := range c.stops {
		for n := min(len(stop)-1, len(text)); n > keep; n-- {
			if strings.HasSuffix(text, stop[:n]) {
				keep = n
			}
		}
	}
	c.held = text[len(text)-keep:]
	return text[:len(text)-keep]
}

// flush returns what is held back at the end of the answer.
func (c *cutter) flush() string {
	held := c.held
	c.held = ""
	return held
}
