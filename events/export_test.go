package events

// EncodeDraft encodes an event as a Writer does.
func EncodeDraft(execution int64, rec Record, d Draft) ([]byte, error) {
	return encode(execution, rec, d)
}
