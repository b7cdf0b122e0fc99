package extract

import (
	"bytes"
	"mime"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/net/html/charset"
)

// binaryBytes is how much of a text is looked at for bytes that no text has.
const binaryBytes = 64 << 10

// decode answers the text of a file in UTF-8, or in UTF-16 with a byte order
// mark.
func decode(data []byte) (string, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\xEF\xBB\xBF")):
		data = data[3:]
	case bytes.HasPrefix(data, []byte("\xFF\xFE")), bytes.HasPrefix(data, []byte("\xFE\xFF")):
		return decodeUTF16(data), nil
	}
	if !utf8.Valid(data) {
		return "", ErrEncoding
	}
	head := data[:min(len(data), binaryBytes)]
	if bytes.IndexByte(head, 0) >= 0 {
		return "", ErrInvalid
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data)), nil
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

// declared brings a text in the encoding of a name into UTF-8. What is UTF-8 already
// or has a byte order mark stays as it is, whatever is declared: declarations are
// easily wrong, and hardly any text of another encoding is valid UTF-8 by chance. An
// unknown name changes nothing.
func declared(data []byte, name string) []byte {
	if name == "" || bytes.HasPrefix(data, []byte("\xFF\xFE")) || bytes.HasPrefix(data, []byte("\xFE\xFF")) {
		return data
	}
	encoding, canonical := charset.Lookup(name)
	// The escapes of ISO-2022-JP are ASCII.
	if encoding == nil || canonical == "replacement" || utf8.Valid(data) && (canonical != "iso-2022-jp" || bytes.IndexByte(data, 0x1b) < 0) {
		return data
	}
	if canonical == "utf-8" || canonical == "utf-16le" || canonical == "utf-16be" { // what is not valid is damaged
		return data
	}
	text, err := encoding.NewDecoder().Bytes(data)
	if err != nil {
		return data
	}
	return text
}

// charsetOf answers the encoding that a media type names; "" for none.
func charsetOf(mediaType string) string {
	_, parameters, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return ""
	}
	return parameters["charset"]
}

var (
	// metaCharset finds both <meta charset=x> and <meta http-equiv content="…; charset=x">.
	metaCharset = regexp.MustCompile(`(?i)<meta[^>]*charset\s*=\s*["']?\s*([a-z0-9_:.-]+)`)
	xmlEncoding = regexp.MustCompile(`^\s*<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9_:.-]+)`)
)

// charsetWithin answers the encoding that a page names at its beginning; "" for none.
func charsetWithin(data []byte) string {
	head := data[:min(len(data), 4096)]
	for _, pattern := range []*regexp.Regexp{xmlEncoding, metaCharset} {
		if found := pattern.FindSubmatch(head); found != nil {
			return string(found[1])
		}
	}
	return ""
}
