package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/pgvector/pgvector-go"
	pgxvector "github.com/pgvector/pgvector-go/pgx"

	"github.com/chainstream/chainstream/knowledge"
)

// question is a search.
type question struct {
	text   string
	vector []float32
}

// maker makes passages and questions, the same ones every time.
type maker struct {
	random  *rand.Rand
	zipf    *rand.Zipf
	centres [][]float32
	size    int
}

// Shape of what is made.
const (
	vocabulary    = 50_000
	wordsOfChunk  = 120
	chunksOfPaper = 100 // passages of a document
	spread        = 0.7 // how far a vector is from the centre of its cluster, which is at 1
)

func newMaker(size, dimensions int) *maker {
	m := &maker{random: rand.New(rand.NewPCG(1, 2)), size: size} // the same every time
	m.zipf = rand.NewZipf(m.random, 1.07, 4, vocabulary-1)
	for range min(max(size/40, 1), 4000) {
		m.centres = append(m.centres, m.direction(dimensions))
	}
	return m
}

// direction answers a vector of the length 1.
func (m *maker) direction(dimensions int) []float32 {
	v := make([]float32, dimensions)
	for i := range v {
		v[i] = float32(m.random.NormFloat64())
	}
	return unit(v)
}

func unit(v []float32) []float32 {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	scale := float32(1 / math.Sqrt(square))
	for i := range v {
		v[i] *= scale
	}
	return v
}

// near answers a vector of a cluster.
func (m *maker) near() []float32 {
	centre := m.centres[m.random.IntN(len(m.centres))]
	v := m.direction(len(centre))
	for i := range v {
		v[i] = centre[i] + spread*v[i]
	}
	return unit(v)
}

func (m *maker) text() string {
	var b strings.Builder
	for range wordsOfChunk {
		fmt.Fprintf(&b, "w%d ", m.zipf.Uint64())
	}
	return b.String()
}

// questions makes searches. Their words are neither the most common nor the rarest.
func (m *maker) questions(n int) []question {
	out := make([]question, n)
	for i := range out {
		var words []string
		for range 5 {
			words = append(words, fmt.Sprintf("w%d", 100+m.random.IntN(5000)))
		}
		out[i] = question{text: strings.Join(words, " "), vector: m.near()}
	}
	return out
}

// regconfig is the number of the type of text search configurations.
const regconfig = 3734

// fill stores passages in a repository, in bulk.
func (m *maker) fill(ctx context.Context, conn *pgx.Conn, r knowledge.Repository, size int) error {
	if err := pgxvector.RegisterTypes(ctx, conn); err != nil {
		return fmt.Errorf("learn the types of vectors: %w", err)
	}
	// Not a type that pgx knows by itself.
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "regconfig", OID: regconfig, Codec: pgtype.Uint32Codec{}})
	papers := (size + chunksOfPaper - 1) / chunksOfPaper
	if _, err := conn.Exec(ctx, `INSERT INTO documents (repository_id, name, version, uploaded, status, progress, bytes, content_hash, chunks)
		SELECT $1, 'paper ' || n, 1, 1, 'ready', 100, 0, '', $3 FROM generate_series(1, $2::integer) n`, r.ID, papers, chunksOfPaper); err != nil {
		return fmt.Errorf("store documents: %w", err)
	}
	var first int64
	var language uint32
	if err := conn.QueryRow(ctx, "SELECT min(id), 'english'::regconfig::oid FROM documents WHERE repository_id = $1", r.ID).Scan(&first, &language); err != nil {
		return fmt.Errorf("read documents: %w", err)
	}
	next := 0
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"chunks"},
		[]string{"repository_id", "document_id", "version", "ordinal", "headings", "text", "tokens", "content_hash", "language"},
		pgx.CopyFromFunc(func() ([]any, error) {
			if next == size {
				return nil, nil
			}
			n := next
			next++
			return []any{r.ID, first + int64(n/chunksOfPaper), 1, n % chunksOfPaper, "", m.text(), wordsOfChunk, binary.BigEndian.AppendUint64(nil, uint64(n)), language}, nil
		})); err != nil {
		return fmt.Errorf("store passages: %w", err)
	}
	var chunk int64
	if err := conn.QueryRow(ctx, "SELECT min(id) FROM chunks WHERE repository_id = $1", r.ID).Scan(&chunk); err != nil {
		return fmt.Errorf("read passages: %w", err)
	}
	next = 0
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{fmt.Sprintf("chunk_vectors_%d", r.Space.ID)}, []string{"chunk_id", "space_id", "embedding"},
		pgx.CopyFromFunc(func() ([]any, error) {
			if next == size {
				return nil, nil
			}
			n := next
			next++
			return []any{chunk + int64(n), r.Space.ID, pgvector.NewHalfVector(m.near())}, nil
		})); err != nil {
		return fmt.Errorf("store vectors: %w", err)
	}
	_, err := conn.Exec(ctx, `INSERT INTO repository_words (repository_id, word, chunks)
		SELECT c.repository_id, u.lexeme, count(*) FROM chunks c, unnest(c.words) u WHERE c.repository_id = $1 GROUP BY 1, 2
		UNION ALL SELECT $1, '', count(*) FROM chunks WHERE repository_id = $1`, r.ID)
	if err != nil {
		return fmt.Errorf("count words: %w", err)
	}
	return nil
}

func literal(v []float32) string { return pgvector.NewHalfVector(v).String() }
