job "lang-functions-text" {
  meta {
    a = format("%s-%03d-%.2f-%t-%q", "x", 7, 1.5, true, "q")
    b = join("|", formatlist("%s:%d", ["a", "b"], [1, 2]))
    c = title(lower("HELLO WORLD"))
    d = trimspace(trimprefix(trimsuffix("  xx  ", " "), " "))
    e = replace("a.b.c", ".", "-")
    f = regex_replace("v1.2.3", "v(\\d+).*", "$1")
    g = strrev(upper("abc"))
    h = substr("herder", 0, 4)
    i = indent(2, "a\nb")
    j = chomp("a\n")
    k = jsonencode(split(",", "a,b"))
    l = strlen("naïve")
    m = trim("--x--", "-")
    n = reverse("ab")
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
