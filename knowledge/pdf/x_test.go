package pdf_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chainstream/chainstream/knowledge/pdf"
)

func TestX(t *testing.T) {
	wasm, _ := os.ReadFile("/tmp/use/pdf/package/dist/pdfium.wasm")
	begin := time.Now()
	r, err := pdf.NewReader(context.Background(), wasm, "/tmp/use/wzcache")
	if err != nil {
		t.Fatal(err)
	}
	t.Log("compiled", time.Since(begin))
	for _, f := range os.Args {
		if len(f) > 4 && f[len(f)-4:] == ".pdf" {
			b, _ := os.ReadFile(f)
			begin := time.Now()
			pages, err := r.Pages(context.Background(), b)
			n := 0
			for _, p := range pages {
				n += len(p.Text)
			}
			t.Log(f, len(b), len(pages), n, err, time.Since(begin))
			if len(pages) > 0 {
				t.Logf("%.300s", pages[0].Text)
			}
		}
	}
}
