package extract

import (
	"encoding/xml"
	"strconv"
	"strings"
)

const (
	outlineLevels = 9 // from 0 on; the next one says that a paragraph is no heading
	mostLevel     = 6 // of a heading
)

// wordStyle is what makes a style one of headings. Its id is in the language of the
// program that wrote the file, its name is not.
type wordStyle struct {
	name    string
	basedOn string
	outline int // level of the outline, from 1 on; 0 = not said, above outlineLevels = none
}

// wordStyles reads the styles of a document.
type wordStyles struct {
	styles map[string]*wordStyle
	style  *wordStyle // which is being read; nil between styles
}

func (w *wordStyles) read(decoder *xml.Decoder) error {
	w.styles = make(map[string]*wordStyle)
	return walk(decoder, w.open, func(xml.CharData) error { return nil }, func(name string) {
		if name == "style" {
			w.style = nil
		}
	})
}

func (w *wordStyles) open(t xml.StartElement) (wanted bool) {
	if t.Name.Local == "style" {
		w.style = &wordStyle{}
		w.styles[attribute(t, "styleId")] = w.style
		return true
	}
	if w.style == nil {
		return true
	}
	switch t.Name.Local {
	case "name":
		w.style.name = attribute(t, "val")
	case "basedOn":
		w.style.basedOn = attribute(t, "val")
	case "outlineLvl":
		if n, err := strconv.Atoi(attribute(t, "val")); err == nil && n >= 0 && n <= outlineLevels {
			w.style.outline = n + 1
		}
	case "pPrChange":
		return false
	}
	return true
}

// levels answers which styles make headings, and of which level.
func (w *wordStyles) levels() map[string]int {
	const mostAncestors = 20 // a style that is based on itself ends here, too
	levels := make(map[string]int)
	for id, style := range w.styles {
		for n := 0; style != nil && n < mostAncestors; n++ {
			if level := levelOf(style.name); level > 0 {
				levels[id] = level
				break
			}
			if style.outline > 0 {
				if style.outline <= outlineLevels {
					levels[id] = min(style.outline, mostLevel)
				}
				break
			}
			style = w.styles[style.basedOn]
		}
	}
	return levels
}

// levelOf answers which heading the name of a style, or an id in English, stands for; 0
// for none.
func levelOf(name string) int {
	name = strings.ToLower(name)
	if name == "title" {
		return 1
	}
	if rest, ok := strings.CutPrefix(name, "heading"); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil && n > 0 {
			return min(n, mostLevel)
		}
	}
	return 0
}
