package wire

import (
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is a JSON string, decoded without replacing anything: broken UTF-8
// stays as it is, and half a surrogate pair becomes the three bytes that UTF-8
// would give it. So llm.Repairer can put split characters together and tell when
// something was broken, which encoding/json does not.
//
// A list of parts, which Mistral's thinking models send, is read as the text of
// its text parts. null and any other value is no text.
type Text string

// UnmarshalJSON implements json.Unmarshaler. The literal has been checked by the
// decoder.
func (t *Text) UnmarshalJSON(literal []byte) error {
	*t = ""
	if len(literal) == 0 {
		return nil
	}
	switch literal[0] {
	case '"':
		*t = Text(unquote(literal[1 : len(literal)-1]))
	case '[':
		var parts []struct {
			Type string `json:"type"`
			Text Text   `json:"text"`
		}
		if err := json.Unmarshal(literal, &parts); err != nil {
			return nil //nolint:nilerr // not a list of parts: no text
		}
		for _, p := range parts {
			if p.Type == "text" {
				*t += p.Text
			}
		}
	}
	return nil
}

// unquote resolves the escapes of a checked string literal without its quotes.
func unquote(s []byte) string {
	i := 0
	for i < len(s) && s[i] != '\\' {
		i++
	}
	if i == len(s) {
		return string(s)
	}
	out := make([]byte, i, len(s))
	copy(out, s)
	for i < len(s) {
		c := s[i]
		if c != '\\' || i+1 >= len(s) {
			out = append(out, c)
			i++
			continue
		}
		c = s[i+1]
		i += 2
		switch c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hexRune(s[i:])
			i += 4
			if utf16.IsSurrogate(r) && i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
				if pair := utf16.DecodeRune(r, hexRune(s[i+2:])); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			out = appendRune(out, r)
		default: // quote, slash, backslash
			out = append(out, c)
		}
	}
	return string(out)
}

// hexRune reads the four digits that s begins with.
func hexRune(s []byte) rune {
	if len(s) < 4 {
		return utf8.RuneError
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}

// appendRune is utf8.AppendRune that keeps half a surrogate pair.
func appendRune(out []byte, r rune) []byte {
	if utf16.IsSurrogate(r) {
		return append(out, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0xBF, 0x80|byte(r)&0xBF)
	}
	return utf8.AppendRune(out, r)
}
