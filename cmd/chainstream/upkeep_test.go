package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// What fails at every turn is told once, and its end too.
func TestUpkeepComplainsOnce(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	c := complaints{logger: slog.New(slog.NewTextHandler(&b, nil)), last: map[string]string{}}
	for _, err := range []error{errors.New("away"), errors.New("away"), errors.New("still away"), nil, nil} {
		c.note(t.Context(), "retention", err)
	}
	if got := b.String(); strings.Count(got, "level=WARN") != 1 || strings.Count(got, "level=INFO") != 1 {
		t.Error(got)
	}
}
