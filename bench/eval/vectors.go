package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// vectors remembers in a file what a model has embedded: the model does not
// change, the ways of searching do. It is not safe for concurrent use.
type vectors struct {
	model llm.Embedder
	file  *os.File
	known map[[sha256.Size]byte][]float32
	made  int
}

// remember opens the file of a model in a folder.
func remember(model llm.Embedder, id, dir string) (*vectors, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of vectors: %w", err)
	}
	name := filepath.Join(dir, strings.ReplaceAll(id, "/", "-")+".vectors")
	v := &vectors{model: model, known: make(map[[sha256.Size]byte][]float32)}
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read vectors: %w", err)
	}
	// What was broken off at its end is cut off.
	end := v.read(data)
	if v.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("open vectors: %w", err)
	}
	if err := v.file.Truncate(int64(end)); err != nil {
		return nil, errors.Join(err, v.file.Close())
	}
	if _, err := v.file.Seek(int64(end), 0); err != nil {
		return nil, errors.Join(err, v.file.Close())
	}
	return v, nil
}

// read takes in entries, each the hash of a text, the length of its vector and its
// numbers, and answers where the last whole one ends.
func (v *vectors) read(data []byte) (end int) {
	for {
		rest := data[end:]
		if len(rest) < sha256.Size+4 {
			return end
		}
		hash, size := [sha256.Size]byte(rest), int(binary.LittleEndian.Uint32(rest[sha256.Size:]))
		rest = rest[sha256.Size+4:]
		if size > len(rest)/4 {
			return end
		}
		vector := make([]float32, size)
		for i := range vector {
			vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(rest[4*i:]))
		}
		v.known[hash] = vector
		end += sha256.Size + 4 + 4*size
	}
}

// Embed implements llm.Embedder.
func (v *vectors) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	out := make([][]float32, len(texts))
	var missing []int
	for i, text := range texts {
		if out[i] = v.known[sha256.Sum256([]byte(text))]; out[i] == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return out, llm.Usage{}, nil
	}
	ask := make([]string, len(missing))
	for i, at := range missing {
		ask[i] = texts[at]
	}
	made, usage, err := v.model.Embed(ctx, model, ask, dimensions)
	if err != nil {
		return nil, usage, err
	}
	var entries []byte
	for i, at := range missing {
		hash := sha256.Sum256([]byte(texts[at]))
		out[at], v.known[hash] = made[i], made[i]
		entries = append(entries, hash[:]...)
		entries = binary.LittleEndian.AppendUint32(entries, uint32(len(made[i])))
		for _, x := range made[i] {
			entries = binary.LittleEndian.AppendUint32(entries, math.Float32bits(x))
		}
	}
	v.made += len(missing)
	if _, err := v.file.Write(entries); err != nil {
		return nil, usage, fmt.Errorf("keep vectors: %w", err)
	}
	return out, usage, nil
}

// Close ends the writing.
func (v *vectors) Close() error { return v.file.Close() }
