package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/chainstream/chainstream/knowledge/extract"
	"github.com/chainstream/chainstream/knowledge/pdf"
	"github.com/chainstream/chainstream/llm/uselite"
)

// Bounds of the process that takes one file apart.
const (
	extractTime   = 45 * time.Second    // by the clock; a job has a minute
	extractCPU    = 30                  // seconds
	extractMemory = 2 << 30             // bytes of data
	extractOutput = 4 * extract.MaxText // bytes; JSON makes text longer
	extractInput  = 1 << 30
	// What is smaller and a text is read in the server itself: it saves the start of a
	// process, and cannot take much.
	extractHere = 64 << 10
)

// extractCommand is chainstream extract: a file on standard input, one block in
// JSON a line on standard output. What cannot be read is one line with an error.
type extractCommand struct {
	Name      string `help:"Name of the file."`
	MediaType string `help:"Media type of the file."`
	PDFium    string `name:"pdfium" help:"PDFium as a WebAssembly file."`
	Cache     string `help:"Folder for compiled code."`
	Leash     bool   `help:"End at once when file descriptor 3 is closed, as it is by the end of the server."`
}

// leashFD is the first of the files that a process is started with beside its
// standard ones.
const leashFD = 3

// leash ends this process with the one that holds the other end of the pipe, in
// whatever way that one ends. The kernel closes the pipe of a killed process, on
// every system; a signal at the death of the parent is known to Linux alone, and
// comes already when the thread ends that started the child.
func leash() {
	pipe := os.NewFile(leashFD, "leash")
	go func() {
		_, _ = pipe.Read(make([]byte, 1)) // nothing is ever written: it returns at the end
		os.Exit(exitFailed)               //nolint:revive // whatever is going on must end, and cannot be asked to
	}()
}

// extractLine is a block, or the reason why there is none.
type extractLine struct {
	extract.Block
	Failure string `json:"failure,omitempty"`
}

// failures are the errors that cross the border between the processes, by name.
var failures = map[string]error{
	"unsupported": extract.ErrUnsupported, "invalid": extract.ErrInvalid, "encoding": extract.ErrEncoding,
	"encrypted": extract.ErrEncrypted, "too_large": extract.ErrTooLarge, "empty": extract.ErrEmpty,
}

// Run takes the file apart.
func (c *extractCommand) Run(ctx context.Context, a *app) error {
	if c.Leash {
		leash()
	}
	if err := limitProcess(extractMemory, extractCPU); err != nil {
		return fmt.Errorf("limit the process: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, extractInput))
	if err != nil {
		return fmt.Errorf("read the file: %w", err)
	}
	out := bufio.NewWriter(a.stdout)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false) // it is six times as long
	blocks, err := c.blocks(ctx, data)
	if err != nil {
		name := ""
		for n, known := range failures {
			if errors.Is(err, known) {
				name = n
			}
		}
		if name == "" {
			return err
		}
		blocks = nil
		if err := lines.Encode(extractLine{Failure: name}); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		if err := lines.Encode(extractLine{Block: b}); err != nil {
			return err
		}
	}
	return out.Flush()
}

func (c *extractCommand) blocks(ctx context.Context, data []byte) ([]extract.Block, error) {
	format, err := extract.Detect(c.Name, c.MediaType, data)
	if err != nil {
		return nil, err
	}
	var reader extract.PDFReader
	if format == extract.PDF {
		wasm, err := os.ReadFile(c.PDFium)
		if err != nil {
			return nil, fmt.Errorf("read PDFium: %w", err)
		}
		r, err := pdf.NewReader(ctx, wasm, c.Cache)
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Close(ctx) }() // the process ends
		reader = pdfPages{r}
	}
	return extract.Read(ctx, c.Name, c.MediaType, data, reader)
}

// pdfPages reads PDF documents with the errors of package extract.
type pdfPages struct{ reader *pdf.Reader }

// PDFPages implements extract.PDFReader.
func (p pdfPages) PDFPages(ctx context.Context, data []byte) ([]extract.PDFPage, error) {
	pages, err := p.reader.Pages(ctx, data)
	switch {
	case errors.Is(err, pdf.ErrEncrypted):
		return nil, extract.ErrEncrypted
	case errors.Is(err, pdf.ErrTooLarge):
		return nil, extract.ErrTooLarge
	case errors.Is(err, pdf.ErrNotPDF):
		return nil, extract.ErrInvalid
	case err != nil:
		return nil, err
	}
	out := make([]extract.PDFPage, len(pages))
	for i, page := range pages {
		out[i].Text = page.Text
		for _, title := range page.Outline {
			out[i].Outline = append(out[i].Outline, extract.Block{Kind: extract.Heading, Level: title.Level, Text: title.Text})
		}
	}
	return out, nil
}

// errNoPDFium is for users.
var errNoPDFium = fmt.Errorf("%w on this server: it lacks PDFium, which reads PDF documents; %s", extract.ErrUnsupported, uselite.Remedy)

// extractor takes files apart: small texts here, everything else in a process of its
// own, with bounded memory and time.
type extractor struct {
	pdfium string // "" = PDF documents cannot be read
}

// Extract implements knowledge.Extractor.
func (x extractor) Extract(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error) {
	format, err := extract.Detect(name, mediaType, data)
	switch {
	case err != nil:
		return nil, err
	case format == extract.PDF && x.pdfium == "":
		return nil, errNoPDFium
	case format == extract.PDF, format == extract.DOCX, format == extract.HTML, len(data) > extractHere:
		return x.apart(ctx, name, mediaType, data)
	}
	return extract.Read(ctx, name, mediaType, data, nil)
}

// apart runs chainstream extract.
func (x extractor) apart(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, extractTime)
	defer cancel()
	args := []string{"extract", "--leash", "--name=" + name, "--media-type=" + mediaType, "--pdfium=" + x.pdfium}
	if dir, err := os.UserCacheDir(); err == nil {
		args = append(args, "--cache="+filepath.Join(dir, "chainstream"))
	}
	cmd := exec.CommandContext(limited, program, args...) //nolint:gosec // this program, with arguments that have no meaning to a shell
	cmd.Env = []string{"GOMEMLIMIT=1GiB"}                 // no keys for what a stranger wrote
	cmd.Stdin = bytes.NewReader(data)
	out, complaint := &bounded{most: extractOutput}, &bounded{most: 4 << 10, drop: true}
	cmd.Stdout, cmd.Stderr = out, complaint
	cmd.WaitDelay = time.Second
	held, kept, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the reader of files: %w", err)
	}
	defer kept.Close() //nolint:errcheck // the child is gone
	cmd.ExtraFiles = []*os.File{held}
	err = errors.Join(cmd.Run(), held.Close())
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case out.full:
		return nil, extract.ErrTooLarge
	case limited.Err() != nil && cmd.ProcessState != nil && cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime() < extractCPU*time.Second/2:
		// The machine is busy, which another try may mend.
		return nil, fmt.Errorf("read the file: %w: it took longer than %s", limited.Err(), extractTime)
	case limited.Err() != nil:
		return nil, fmt.Errorf("%w: it took longer than %s", extract.ErrTooLarge, extractTime)
	case err != nil && cmd.ProcessState != nil && (!cmd.ProcessState.Exited() || outOfMemory(complaint.Bytes())):
		return nil, fmt.Errorf("%w: %w: %s", extract.ErrTooLarge, err, firstLine(complaint.Bytes()))
	case err != nil && cmd.ProcessState != nil: // the file broke the reader
		return nil, fmt.Errorf("%w: %w: %s", extract.ErrInvalid, err, firstLine(complaint.Bytes()))
	case err != nil:
		return nil, fmt.Errorf("start the reader of files: %w", err)
	}
	return readLines(out.Bytes())
}

// firstLine leaves out the stacks of a Go program that ends for want of memory.
func firstLine(complaint []byte) []byte {
	line, _, _ := bytes.Cut(bytes.TrimSpace(complaint), []byte("\n"))
	return line
}

// outOfMemory tells whether this is how a Go program complains of too little memory.
func outOfMemory(complaint []byte) bool {
	return bytes.Contains(complaint, []byte("out of memory")) || bytes.Contains(complaint, []byte("cannot allocate memory"))
}

func readLines(out []byte) ([]extract.Block, error) {
	var blocks []extract.Block
	lines := json.NewDecoder(bytes.NewReader(out))
	for {
		var l extractLine
		err := lines.Decode(&l)
		if errors.Is(err, io.EOF) {
			return blocks, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", extract.ErrInvalid, err)
		}
		if l.Failure != "" {
			if known := failures[l.Failure]; known != nil {
				return nil, known
			}
			return nil, extract.ErrInvalid
		}
		blocks = append(blocks, l.Block)
	}
}

// bounded keeps what is written to it up to a size. What is more is an error, or
// dropped.
type bounded struct {
	bytes.Buffer
	most int
	drop bool
	full bool
}

var errBounded = errors.New("too much output")

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		b.full = true
		if b.drop {
			return len(p), nil
		}
		return 0, errBounded
	}
	return b.Buffer.Write(p)
}
