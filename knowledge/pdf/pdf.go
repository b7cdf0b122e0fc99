// Package pdf reads the text of PDF documents. It runs PDFium (BSD-3-Clause and
// Apache-2.0), compiled to WebAssembly, in a sandbox without files, network,
// environment or clock, with bounded memory: a hostile document can do nothing
// but fail.
package pdf

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/emscripten"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Errors of reading a document.
var (
	// ErrNotPDF says that the bytes are no PDF document, or one that is broken
	// beyond repair.
	ErrNotPDF = errors.New("not a readable PDF document")
	// ErrEncrypted says that the document needs a password.
	ErrEncrypted = errors.New("the PDF document is encrypted")
	// ErrTooLarge says that reading the document takes more memory, or gives more
	// text or pages, than is allowed.
	ErrTooLarge = errors.New("the PDF document is too large")
)

// Page is the text of one page; lines end in \n.
type Page struct {
	Number  int // 1-based
	Text    string
	Outline []Title // that lead to this page, in their order
}

// Title is an entry in the outline of a document, which readers show beside it.
type Title struct {
	Level int // 1-based
	Text  string
}

// Bounds of a document.
const (
	maxMemoryPages = 512 << 20 / 65536 // of 64 KiB: 512 MiB
	maxPages       = 20_000
	maxText        = 64 << 20 // bytes, all pages together
	maxTitles      = 20_000
	maxTitleLevel  = 6
	maxTitleBytes  = 2 << 10 // of UTF-16
)

// Reader reads documents. It is safe for concurrent use; every document has a
// sandbox of its own.
type Reader struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// NewReader compiles PDFium, which takes a second or two unless cacheDir, which
// may be empty, has the result of an earlier time. Close the reader when it is no
// longer needed.
func NewReader(ctx context.Context, wasm []byte, cacheDir string) (*Reader, error) {
	config := wazero.NewRuntimeConfig().WithMemoryLimitPages(maxMemoryPages).WithCloseOnContextDone(true)
	if cacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
		if err != nil {
			return nil, fmt.Errorf("open the cache of compiled code: %w", err)
		}
		config = config.WithCompilationCache(cache)
	}
	r := &Reader{runtime: wazero.NewRuntimeWithConfig(ctx, config)}
	if err := r.prepare(ctx, wasm); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare PDFium: %w", err), r.Close(ctx))
	}
	return r, nil
}

// Close frees the compiled code.
func (r *Reader) Close(ctx context.Context) error { return r.runtime.Close(ctx) }

func (r *Reader) prepare(ctx context.Context, wasm []byte) error {
	var err error
	if r.compiled, err = r.runtime.CompileModule(ctx, wasm); err != nil {
		return err
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r.runtime); err != nil {
		return err
	}
	exporter, err := emscripten.NewFunctionExporterForModule(r.compiled)
	if err != nil {
		return err
	}
	env := r.runtime.NewHostModuleBuilder("env")
	exporter.ExportFunctions(env)
	for _, f := range r.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != "env" || strings.HasPrefix(name, "invoke_") || name == "emscripten_notify_memory_growth" {
			continue
		}
		env.NewFunctionBuilder().WithGoModuleFunction(host(name, f), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	_, err = env.Instantiate(ctx)
	return err
}

// What the host answers to system calls: there are no files.
const (
	noEntry  = ^uint64(43) // -ENOENT in WASI's numbers
	pageSize = 65536
)

// host is the part of the operating system that PDFium calls by name.
func host(name string, f api.FunctionDefinition) api.GoModuleFunc {
	results := len(f.ResultTypes())
	switch name {
	case "emscripten_resize_heap":
		return func(_ context.Context, m api.Module, stack []uint64) {
			memory := m.Memory()
			want := uint32(stack[0])
			stack[0] = 0
			if have := memory.Size(); want > have {
				if _, ok := memory.Grow((want - have + pageSize - 1) / pageSize); !ok {
					return
				}
			}
			stack[0] = 1
		}
	case "emscripten_date_now":
		return func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = api.EncodeF64(0) }
	case "_abort_js", "_emscripten_throw_longjmp":
		return func(context.Context, api.Module, []uint64) { panic(errAborted) }
	}
	return func(_ context.Context, _ api.Module, stack []uint64) {
		if results > 0 {
			stack[0] = noEntry
		}
	}
}

var errAborted = errors.New("PDFium gave up")

// PDFium's error numbers; see FPDF_GetLastError.
const (
	codePassword = 4
	codeSecurity = 5
)

// Pages reads all pages of a document. ctx bounds the time; its error is
// returned when it ends first.
func (r *Reader) Pages(ctx context.Context, data []byte) (pages []Page, err error) {
	m, err := r.runtime.InstantiateModule(ctx, r.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("start PDFium: %w", err)
	}
	defer func() { _ = m.Close(context.WithoutCancel(ctx)) }() // nothing outlives the sandbox
	d := document{ctx: ctx, module: m}
	defer func() {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if err == nil && d.err != nil {
			err = fmt.Errorf("%w: %w", ErrNotPDF, d.err)
		}
	}()
	d.call("__wasm_call_ctors")
	d.call("FPDF_InitLibrary")
	at := d.call("malloc", uint64(len(data)))
	if d.err != nil || at == 0 || !m.Memory().Write(uint32(at), data) {
		return nil, ErrTooLarge
	}
	doc := d.call("FPDF_LoadMemDocument64", at, uint64(len(data)), 0)
	if doc == 0 {
		if code := d.call("FPDF_GetLastError"); code == codePassword || code == codeSecurity {
			return nil, ErrEncrypted
		}
		return nil, ErrNotPDF
	}
	count := int(d.call("FPDF_GetPageCount", doc))
	if count > maxPages {
		return nil, fmt.Errorf("%w: it has %d pages, at most %d are read", ErrTooLarge, count, maxPages)
	}
	outline := d.outline(doc)
	size := 0
	for i := 0; i < count && d.err == nil; i++ {
		text := d.page(doc, i)
		if size += len(text); size > maxText {
			return nil, fmt.Errorf("%w: it has more than %d MiB of text", ErrTooLarge, maxText>>20)
		}
		pages = append(pages, Page{Number: i + 1, Text: text, Outline: outline[i]})
	}
	return pages, nil
}

// document calls into one sandbox and keeps its first error.
type document struct {
	ctx    context.Context //nolint:containedctx // of one call of Pages
	module api.Module
	err    error
}

func (d *document) call(name string, params ...uint64) uint64 {
	if d.err != nil {
		return 0
	}
	var results []uint64
	if results, d.err = d.module.ExportedFunction(name).Call(d.ctx, params...); d.err != nil || len(results) == 0 {
		return 0
	}
	return results[0]
}

// page reads the text of one page; a page that cannot be read has none.
func (d *document) page(doc uint64, index int) string {
	page := d.call("FPDF_LoadPage", doc, uint64(index))
	if page == 0 {
		return ""
	}
	defer d.call("FPDF_ClosePage", page)
	text := d.call("FPDFText_LoadPage", page)
	if text == 0 {
		return ""
	}
	defer d.call("FPDFText_ClosePage", text)
	count := d.call("FPDFText_CountChars", text)
	if int32(count) <= 0 {
		return ""
	}
	bytes := 2 * (count + 1)
	at := d.call("malloc", bytes)
	if at == 0 {
		return ""
	}
	defer d.call("free", at)
	written := d.call("FPDFText_GetText", text, 0, count, at)
	out := strings.ReplaceAll(d.text(at, min(2*written, bytes)), "\r\n", "\n")
	return strings.NewReplacer("\r", "\n", "\u0002", "", "\ufffe", "").Replace(out)
}

// text reads UTF-16 from the sandbox, without NUL.
func (d *document) text(at, bytes uint64) string {
	raw, ok := d.module.Memory().Read(uint32(at), uint32(bytes))
	if !ok {
		return ""
	}
	units := make([]uint16, 0, len(raw)/2)
	for i := 0; i+1 < len(raw); i += 2 {
		if u := uint16(raw[i]) | uint16(raw[i+1])<<8; u != 0 {
			units = append(units, u)
		}
	}
	return string(utf16.Decode(units))
}

// outline answers the titles of a document by the index of the page that they lead
// to. A hostile outline may be a circle, and is bounded.
func (d *document) outline(doc uint64) map[int][]Title {
	titles := make(map[int][]Title)
	buffer := d.call("malloc", maxTitleBytes)
	if buffer == 0 {
		return titles
	}
	defer d.call("free", buffer)
	seen := make(map[uint64]bool)
	var walk func(parent uint64, level int)
	walk = func(parent uint64, level int) {
		for at := d.call("FPDFBookmark_GetFirstChild", doc, parent); at != 0 && !seen[at] && len(seen) < maxTitles; at = d.call("FPDFBookmark_GetNextSibling", doc, at) {
			seen[at] = true
			// A title that is longer than the buffer is not written to it.
			if size := d.call("FPDFBookmark_GetTitle", at, buffer, maxTitleBytes); size > 2 && size <= maxTitleBytes {
				title := strings.Join(strings.Fields(d.text(buffer, size)), " ")
				if index, ok := d.target(doc, at); ok && title != "" {
					titles[index] = append(titles[index], Title{Level: level, Text: title})
				}
			}
			if level < maxTitleLevel {
				walk(at, level+1)
			}
		}
	}
	walk(0, 1)
	return titles
}

// target answers the index of the page that an entry of the outline leads to.
func (d *document) target(doc, entry uint64) (index int, ok bool) {
	dest := d.call("FPDFBookmark_GetDest", doc, entry)
	if dest == 0 {
		if action := d.call("FPDFBookmark_GetAction", entry); action != 0 {
			dest = d.call("FPDFAction_GetDest", doc, action)
		}
	}
	if dest == 0 {
		return 0, false
	}
	page := int32(d.call("FPDFDest_GetDestPageIndex", doc, dest))
	return int(page), page >= 0
}
