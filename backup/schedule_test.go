package backup_test

import (
	"testing"
	"time"

	"github.com/daeploy/daeploy/backup"
)

func TestScheduleLast(t *testing.T) {
	summer, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	daily := backup.Schedule{At: backup.TimeOfDay(150 * time.Minute), Every: 24 * time.Hour}
	sixth := backup.Schedule{At: backup.TimeOfDay(14 * time.Hour), Every: 6 * time.Hour}
	for _, test := range []struct {
		schedule backup.Schedule
		place    *time.Location
		now      string
		want     string
	}{
		{daily, time.UTC, "2026-03-01 02:29", "2026-02-28 02:30"},
		{daily, time.UTC, "2026-03-01 02:30", "2026-03-01 02:30"},
		{daily, time.UTC, "2026-03-01 23:59", "2026-03-01 02:30"},
		{sixth, time.UTC, "2026-03-01 01:59", "2026-02-28 20:00"},
		{sixth, time.UTC, "2026-03-01 02:00", "2026-03-01 02:00"},
		{sixth, time.UTC, "2026-03-01 13:59", "2026-03-01 08:00"},
		{daily, summer, "2026-03-29 12:00", "2026-03-29 03:30"}, // there is no 02:30 on that day
		{daily, summer, "2026-10-25 12:00", "2026-10-25 02:30"}, // and two on this
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", test.now, test.place)
		if err != nil {
			t.Fatal(err)
		}
		if got := test.schedule.Last(now).Format("2006-01-02 15:04"); got != test.want {
			t.Errorf("at %s in %s, one was due last at %s, want %s", test.now, test.place, got, test.want)
		}
	}
}

func TestScheduleCheck(t *testing.T) {
	for every, ok := range map[time.Duration]bool{
		time.Hour: true, 6 * time.Hour: true, 24 * time.Hour: true, 0: false, -time.Hour: false, time.Minute: false, 5 * time.Hour: false, 48 * time.Hour: false,
	} {
		if err := (backup.Schedule{Every: every}).Check(); (err == nil) != ok {
			t.Errorf("every %s: %v; want it accepted: %v", every, err, ok)
		}
	}
}

func TestTimeOfDay(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"02:30": 150 * time.Minute, "00:00": 0, "23:59": 24*time.Hour - time.Minute,
		"": -1, "24:00": -1, "2:30": -1, "02:30:00": -1, "02.30": -1, "02:3x": -1, "-1:30": -1, "02:60": -1,
	} {
		at := backup.TimeOfDay(-1)
		if err := at.UnmarshalText([]byte(text)); (err != nil) != (want < 0) || time.Duration(at) != want {
			t.Errorf("%q is read as %s (%v), want %s", text, time.Duration(at), err, want)
		}
		if want >= 0 && at.String() != text {
			t.Errorf("%q is written as %q", text, at)
		}
	}
}
