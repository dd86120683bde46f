job "lang-functions-collections" {
  meta {
    a = jsonencode(chunklist(["a", "b", "c"], 2))
    b = coalesce(null, "b")
    c = jsonencode(coalescelist([], ["c"]))
    d = jsonencode(compact(["a", "", "b"]))
    e = jsonencode(concat(["a"], ["b"]))
    f = contains(["a"], "a")
    g = jsonencode(distinct(["a", "a"]))
    h = element(["a", "b"], 3)
    i = jsonencode(flatten([["a"], ["b", ["c"]]]))
    j = index(["a", "b"], 1)
    k = jsonencode(keys({ b = 1, a = 2 }))
    l = length(["a", "b"])
    m = lookup({ a = "x" }, "b", "none")
    n = jsonencode(merge({ a = 1 }, { b = 2 }))
    o = jsonencode(range(1, 4))
    p = jsonencode(setintersection(["a", "b"], ["b"]))
    q = jsonencode(setproduct(["a"], ["x", "y"]))
    r = jsonencode(setunion(["b"], ["a"]))
    s = jsonencode(slice(["a", "b", "c"], 1, 2))
    t = jsonencode(sort(["b", "a"]))
    u = jsonencode(values({ b = 1, a = 2 }))
    v = jsonencode(zipmap(["k"], ["v"]))
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
