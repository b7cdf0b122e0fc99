package llm

// EstimateTokens roughly counts the tokens of a text for models whose tokenizer
// is not at hand: four ASCII characters, two letters of other alphabets up to
// U+07FF, or one character of any other script or symbol make a token, rounded
// up. For English prose the result is usually within a fifth of what OpenAI's
// tokenizers count. It is 0 only for the empty text.
func EstimateTokens(text string) int64 {
	return (tokenQuarters(text) + 3) / 4
}

// tokenQuarters counts in quarters of a token.
func tokenQuarters(text string) int64 {
	var quarters int64
	for _, r := range text {
		quarters += runeQuarters(r)
	}
	return quarters
}

func runeQuarters(r rune) int64 {
	switch {
	case r < 0x80:
		return 1
	case r < 0x800:
		return 2
	default:
		return 4
	}
}

// CutTokens returns the longest prefix of text that EstimateTokens counts as at
// most limit tokens.
func CutTokens(text string, limit int64) string {
	var quarters int64
	for i, r := range text {
		quarters += runeQuarters(r)
		if (quarters+3)/4 > limit {
			return text[:i]
		}
	}
	return text
}
