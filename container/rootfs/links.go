package rootfs

import (
	"encoding/binary"
	"fmt"
)

// firstNames knows the first name of each file that has several, by inode. A build can
// leave a million such files with names of many KiB: what is too much for memory is on
// the disk, as a table of chains. It belongs to one goroutine, which closes it.
type firstNames struct {
	few  map[uint64]string
	size int // bytes of few
	disk scratch
	end  int64 // of the disk's records; 0 while there is none
}

// The file has the offsets of the first record of each chain, and then the records:
// the offset of the next one in its chain, 0 for none, inode and length of the name,
// and the name.
const (
	chainBits   = 20
	chainsSize  = 8 << chainBits
	linkHead    = 8 + 8 + 4
	maxFewLinks = 1 << 20 // bytes of names in memory
)

func (n *firstNames) close() { n.disk.close() }

// first gives the name that an inode was given before, or gives it this one: then it is
// "".
func (n *firstNames) first(inode uint64, name string) (string, error) {
	if first, ok := n.few[inode]; ok {
		return first, nil
	}
	if n.end == 0 {
		const besides = 64 // bytes that an entry of the map takes besides the name
		if n.size += len(name) + besides; n.size < maxFewLinks {
			n.few[inode] = name
			return "", nil
		}
	}
	first, err := n.onDisk(inode, name)
	if err != nil {
		return "", fmt.Errorf("keep the names of hard links: %w", err)
	}
	return first, nil
}

func (n *firstNames) onDisk(inode uint64, name string) (string, error) {
	file, err := n.disk.open()
	if err != nil {
		return "", err
	}
	if n.end == 0 {
		n.end = chainsSize
		if err := file.Truncate(n.end); err != nil {
			return "", err
		}
	}
	chain := int64(inode*0x9E3779B97F4A7C15>>(64-chainBits)) * 8 // Fibonacci's hash
	var head [linkHead]byte
	if _, err := file.ReadAt(head[:8], chain); err != nil {
		return "", err
	}
	newest := binary.LittleEndian.Uint64(head[:])
	for at := newest; at > 0; at = binary.LittleEndian.Uint64(head[:]) {
		if _, err := file.ReadAt(head[:], int64(at)); err != nil {
			return "", err
		}
		if binary.LittleEndian.Uint64(head[8:]) == inode {
			first := make([]byte, binary.LittleEndian.Uint32(head[16:]))
			_, err := file.ReadAt(first, int64(at)+linkHead)
			return string(first), err
		}
	}
	record := binary.LittleEndian.AppendUint64(nil, newest)
	record = binary.LittleEndian.AppendUint64(record, inode)
	record = append(binary.LittleEndian.AppendUint32(record, uint32(len(name))), name...)
	if _, err := file.WriteAt(record, n.end); err != nil {
		return "", err
	}
	if _, err := file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(n.end)), chain); err != nil {
		return "", err
	}
	n.end += int64(len(record))
	return "", nil
}

// inodes are a set, in bits: those of one tree lie close together.
type inodes map[uint64]uint64

// add tells whether the inode is a new one.
func (s inodes) add(inode uint64) bool {
	bits, bit := s[inode/64], uint64(1)<<(inode%64)
	s[inode/64] = bits | bit
	return bits&bit == 0
}
