package tokenizer

// Pieces and MaxPiece are how long texts are cut.
var Pieces = pieces

// MaxPiece is the longest of Pieces, in bytes.
const MaxPiece = maxPiece

// IDs answers the tokens of a text.
func IDs(name, text string) ([]uint, error) {
	ids, _, err := codecs[name]().Encode(text)
	return ids, err
}
