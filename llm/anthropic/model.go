package anthropic

import "strings"

// version is the generation of a model, ten times: 45 for Claude 4.5. Names that
// are not Claude's, on servers that offer the same API, are 0.
type version int

// newest is the version of a Claude whose name does not say one.
const newest version = 1000

// Versions from which on models differ in what they take.
const (
	longAnswers  version = 37 // at least 32,000 tokens
	oneSampling  version = 41 // temperature or top_p
	nativeSchema version = 45 // output_config.format and strict tools
	adaptive     version = 46 // effort, and thinking without a budget
	noSampling   version = 47 // neither temperature nor top_p
)

// versionOf reads the name of a model: claude-sonnet-4-5-20250929,
// claude-3-7-sonnet-latest, and the forms with dots or a prefix that gateways use.
func versionOf(model string) version {
	_, name, found := strings.Cut(strings.ToLower(model), "claude-")
	if !found {
		return 0
	}
	parts := strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("-.@:_", r) })
	for i, part := range parts {
		major, ok := smallNumber(part)
		if !ok {
			continue
		}
		minor := 0
		if i+1 < len(parts) {
			minor, _ = smallNumber(parts[i+1])
		}
		return version(major*10 + min(minor, 9))
	}
	return newest
}

// smallNumber reads one or two digits; dates have more.
func smallNumber(s string) (int, bool) {
	if s == "" || len(s) > 2 {
		return 0, false
	}
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// maxTokens answers the limit of an answer whose request has none.
func (v version) maxTokens() int {
	switch {
	case v >= longAnswers:
		return 32_000
	case v == 0 || v == 35:
		return 8192
	}
	return 4096
}
