package backup

import (
	"fmt"
	"slices"
	"time"
)

// Schedule says when a backup is due without anybody asking: at a time of the day,
// and so often from there.
type Schedule struct {
	At    TimeOfDay
	Every time.Duration // a whole part of a day
}

const day = 24 * time.Hour

// Check tells whether the schedule has the same times each day.
func (s Schedule) Check() error {
	if s.Every < time.Hour || s.Every > day || day%s.Every != 0 {
		return fmt.Errorf("%s is no whole part of a day, from 1h to 24h", s.Every)
	}
	return nil
}

// Last is when a backup was due last, at now or before. Times are on the clock of
// now's place: where that is set forward at night, one may be an hour late, or,
// where it is set back, come an hour early.
func (s Schedule) Last(now time.Time) time.Time {
	var due []time.Time
	for days := -1; days <= 0; days++ {
		for at := time.Duration(s.At) % s.Every; at < day; at += s.Every {
			minutes := int(at / time.Minute)
			due = append(due, time.Date(now.Year(), now.Month(), now.Day()+days, minutes/60, minutes%60, 0, 0, now.Location()))
		}
	}
	due = slices.DeleteFunc(due, func(t time.Time) bool { return t.After(now) })
	return slices.MaxFunc(due, time.Time.Compare)
}

// TimeOfDay is a time since midnight, in whole minutes.
type TimeOfDay time.Duration

// UnmarshalText reads "02:30".
func (t *TimeOfDay) UnmarshalText(text []byte) error {
	at, err := time.Parse("15:04", string(text))
	if err != nil || len(text) != len("02:30") {
		return fmt.Errorf("%q is not a time of the day such as 02:30", text)
	}
	*t = TimeOfDay(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute)
	return nil
}

// String is as UnmarshalText reads it.
func (t TimeOfDay) String() string {
	return fmt.Sprintf("%02d:%02d", time.Duration(t)/time.Hour, time.Duration(t)%time.Hour/time.Minute)
}
