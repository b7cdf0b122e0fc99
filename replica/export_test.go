package replica

// Encode writes a hint as a message.
func Encode(sender string, h Hint) []byte {
	g := gathered{queue: h.Queue, all: h.All}
	for _, id := range h.Grown {
		g.gather(&g.grown, id)
	}
	for _, id := range h.Cancel {
		g.gather(&g.cancel, id)
	}
	return g.encode(sender)
}

// Decode reads a message.
func Decode(message []byte) (sender string, h Hint, ok bool) { return decode(message) }
