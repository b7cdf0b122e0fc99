package pdf_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge/pdf"
)

// wasm is where scripts/setup.sh --test puts PDFium. Tests fail without it.
const wasm = "../../build/models/pdfium/pdfium.wasm"

var shared struct {
	once   sync.Once
	reader *pdf.Reader
	err    error
}

// reader is compiled once for all tests.
func reader(t testing.TB) *pdf.Reader {
	t.Helper()
	shared.once.Do(func() {
		code, err := os.ReadFile(wasm)
		if err != nil {
			shared.err = fmt.Errorf("%w; scripts/setup.sh --test fetches PDFium", err)
			return
		}
		shared.reader, shared.err = pdf.NewReader(context.Background(), code, "")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.reader
}

func document(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Many documents at once: each has a sandbox of its own.
func TestPages(t *testing.T) {
	r, data := reader(t), document(t, "pages.pdf")
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			pages, err := r.Pages(t.Context(), data)
			if err != nil || len(pages) != 2 {
				t.Errorf("%d pages, error %v", len(pages), err)
				return
			}
			for i, want := range []string{"The moon pulls the water.", "where it meets the sea: “naïve” words"} {
				if pages[i].Number != i+1 || !strings.Contains(pages[i].Text, want) || strings.ContainsAny(pages[i].Text, "\r\x00") {
					t.Errorf("page %d: %q", pages[i].Number, pages[i].Text)
				}
			}
		})
	}
	group.Wait()
}

func TestPagesRefuses(t *testing.T) {
	r, good := reader(t), document(t, "pages.pdf")
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"encrypted": {document(t, "encrypted.pdf"), pdf.ErrEncrypted},
		"empty":     {nil, pdf.ErrNotPDF},
		"text":      {[]byte("no document at all"), pdf.ErrNotPDF},
		"garbage":   {append([]byte("%PDF-1.7\n"), bytes.Repeat([]byte{0xff, 0x00, 0x9c, '<'}, 50_000)...), pdf.ErrNotPDF},
		"the start": {good[:200], pdf.ErrNotPDF},
		"too many pages": {
			[]byte("%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 900000>>endobj\n" +
				"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>"),
			pdf.ErrTooLarge,
		},
		"more than the memory": {append(bytes.Clone(good), make([]byte, 520<<20)...), pdf.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			pages, err := r.Pages(t.Context(), tc.data)
			if !errors.Is(err, tc.want) || len(pages) > 0 {
				t.Errorf("%d pages, error %v; want %v", len(pages), err, tc.want)
			}
		})
	}
	if pages, err := r.Pages(t.Context(), good); err != nil || len(pages) != 2 {
		t.Errorf("after all that: %d pages, error %v", len(pages), err)
	}
}

// A document whose bytes are damaged here and there is read in part or refused.
func TestPagesDamaged(t *testing.T) {
	r, good := reader(t), document(t, "pages.pdf")
	for at := 50; at < len(good); at += len(good) / 25 {
		data := bytes.Clone(good)
		for i := at; i < min(at+7, len(data)); i++ {
			data[i] ^= byte(at)
		}
		_, err := r.Pages(t.Context(), data)
		if err != nil && !errors.Is(err, pdf.ErrNotPDF) && !errors.Is(err, pdf.ErrEncrypted) && !errors.Is(err, pdf.ErrTooLarge) {
			t.Errorf("damaged at %d: %v", at, err)
		}
	}
}

func TestPagesEndsWithItsContext(t *testing.T) {
	gone := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if pages, err := reader(t).Pages(ctx, document(t, "pages.pdf")); !errors.Is(err, gone) || pages != nil {
		t.Errorf("%d pages, error %v", len(pages), err)
	}
}

func TestNewReaderRefuses(t *testing.T) {
	if r, err := pdf.NewReader(t.Context(), []byte("no code"), ""); err == nil || r != nil {
		t.Errorf("error %v", err)
	}
}

// An outline is read once, also when it leads in a circle.
func TestOutline(t *testing.T) {
	data := "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R/Outlines 4 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R 3 0 R]/Count 2>>endobj\n" +
		"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n4 0 obj<</First 5 0 R/Last 6 0 R/Count 2>>endobj\n" +
		"5 0 obj<</Title(The  tides)/Parent 4 0 R/Dest[3 0 R/Fit]/First 6 0 R/Next 5 0 R>>endobj\n" +
		"6 0 obj<</Title(Ebb)/Parent 5 0 R/A<</S/GoTo/D[3 0 R/Fit]>>/First 5 0 R/Next 6 0 R>>endobj\ntrailer<</Root 1 0 R>>"
	pages, err := reader(t).Pages(t.Context(), []byte(data))
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, error %v", len(pages), err)
	}
	want := []pdf.Title{{Level: 1, Text: "The tides"}, {Level: 2, Text: "Ebb"}}
	if diff := cmp.Diff(want, pages[0].Outline); diff != "" {
		t.Error(diff)
	}
}

func FuzzPages(f *testing.F) {
	r := reader(f)
	f.Add(document(f, "pages.pdf"))
	f.Add([]byte("%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[2 0 R]/Count 9>>endobj\ntrailer<</Root 1 0 R>>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pages, err := r.Pages(t.Context(), data)
		if err != nil && !errors.Is(err, pdf.ErrNotPDF) && !errors.Is(err, pdf.ErrEncrypted) && !errors.Is(err, pdf.ErrTooLarge) {
			t.Errorf("an error that says nothing to users: %v", err)
		}
		for _, page := range pages {
			if !utf8.ValidString(page.Text) || strings.ContainsAny(page.Text, "\r\x00") {
				t.Errorf("page %d: %q", page.Number, page.Text)
			}
		}
	})
}
