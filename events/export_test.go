package events

// EncodeDraft encodes an event as a Writer does.
func EncodeDraft(execution int64, rec Record, d Draft) ([]byte, error) {
	_, err := newRecordFrame(execution, &rec, d)
	return rec.Data, err
}
