package main_test

import (
	"strings"
	"testing"
)

// Doctor tells where the files of the embedding model and of PDFium are, or what
// to do without them.
func TestDoctorOfFiles(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string][]string{
		"../../build/models": {"the embedding model offline/use-lite can be used", "pdfium.wasm", "vectors can be made by offline/hash, offline/use-lite"},
		t.TempDir():          {"the files of the embedding model use-lite are missing; run make models", "Last resort", "PDF documents cannot be read", "vectors can be made by offline/hash\n"},
	} {
		r := execute(t, nil, "doctor", "--models-dir", dir, "--data-dir", t.TempDir(), "--server", "http://127.0.0.1:1")
		for _, text := range want {
			if !strings.Contains(r.stdout, text) {
				t.Errorf("%q is not in:\n%s", text, r.stdout)
			}
		}
	}
}
