job "lang-operators" {
  meta {
    sum      = 1 + 2 * 3 - 4 / 2
    rest     = 7 % 3
    minus    = -(2 + 1)
    text     = "2" * "3"
    logic    = !false && (1 < 2 || false)
    equal    = "a" == "a" ? "same" : "other"
    fraction = 0.1 + 0.2
    big      = 1e3
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
